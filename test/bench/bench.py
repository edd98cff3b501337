"""Measures nexus_kafka against what bounds it, on a real Kafka and a PostgreSQL of its own.

    test/bench/run                            everything; about 20 minutes
    test/bench/run ingest --rounds 1          one part, quickly

Parts: ingest (against COPY and raw consume), relay (against raw produce), produce
(nexus_produce against INSERT), now (nexus_produce_now, 50 backends against 1), latency, answers
(of functions that have nothing to wait for, and a start by time), snapshot (batches, flush and
consume under a held snapshot, against without), far (CPU of the relay, broker 10 to 20 ms away),
idle, workers (2 against 1), backlog (2 million messages behind: memory).
Each figure is the median of the rounds; what is compared runs in turn, on the same rows.
Ends with a table in Markdown.
"""

import argparse
import os
import platform
import subprocess

import parts
import report
import system

SETTINGS = ('shared_buffers', 'max_wal_size', 'checkpoint_timeout', 'wal_level', 'fsync', 'synchronous_commit',
            'full_page_writes', 'autovacuum', 'jit', 'work_mem')


def parse_arguments():
    parser = argparse.ArgumentParser(prog='test/bench/run', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('parts', nargs='*', choices=[[], *parts.ALL], metavar='part', help=', '.join(parts.ALL))
    parser.add_argument('--rounds', type=int, default=3, help='rounds of each measurement (default 3)')
    parser.add_argument('--rows', type=int, default=300_000, help='sessions for ingest and relay (default 300000)')
    parser.add_argument('--backlog-rows', type=int, default=2_000_000, help='sessions for backlog (default 2000000)')
    parser.add_argument('--seconds', type=int, default=5, help='of one pgbench (default 5)')
    parser.add_argument('--calls', type=int, default=50, help='of each function in answers and snapshot (default 50)')
    parser.add_argument('--batches', type=int, default=10_000, help='of one message, for snapshot (default 10000)')
    parser.add_argument('--dead-rows', type=int, default=1_000_000, help='of the outbox, for snapshot (default 1000000)')
    parser.add_argument('--idle-seconds', type=int, default=30, help='of watching idle processes (default 30)')
    parser.add_argument('--directory', default=os.getcwd(), help=argparse.SUPPRESS)  # from test/bench/run
    return parser.parse_args()


def output_of(*command):
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout.strip()


def main():
    options = parse_arguments()
    results = report.Report()
    machine = system.System(options.directory)
    try:
        print_circumstances(machine)
        for name in options.parts or parts.ALL:
            print(f'{name}:', flush=True)
            parts.ALL[name](machine, options, results)
    finally:
        machine.stop()
    print(f'\nrounds: {options.rounds}\n\n{results.table()}')


def print_circumstances(machine):
    cursor = machine.connect('postgres')
    settings = [f"{name}={system.scalar(cursor, f'SHOW {name}')}" for name in SETTINGS]
    print('settings:', ', '.join(settings))
    print(system.scalar(cursor, 'SELECT version()').split(' on ')[0], 'librdkafka ' + output_of('pkg-config', '--modversion', 'rdkafka'),
          f'{os.cpu_count()} cores, {platform.machine()}', sep=', ', flush=True)
    cursor.connection.close()


if __name__ == '__main__':
    main()
