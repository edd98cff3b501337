"""The measurements. Each is called with the system, the options and the report."""

import os
import re
import statistics
import subprocess
import time

import processes
from answers import answers
from report import spread
from snapshot import snapshot
from system import scalar, status, wait

WORKERS = "SELECT backend_type, pid FROM pg_stat_activity WHERE backend_type LIKE 'nexus_kafka %' ORDER BY 1, 2"
INGEST_PID = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'nexus_kafka ingest'"


# ---------------------------------------------------------------- ingest and COPY

def ingest(system, options, report):
    """300k sessions, one partition: the pipeline, COPY and raw consume in turn."""
    data = system.data(options.rows, 1)
    warm_up(system, data)
    taken = [ingest_round(system, data, copy_first=n % 2 == 1) for n in range(options.rounds)]
    consumed = [system.raw('consume', data.topic, 1, data.count) for _ in range(options.rounds)]
    seconds, starts, _, copied = zip(*taken)

    what = f'ingest, {data.count} sessions of {data.value_bytes:.0f} bytes, 1 partition'
    report.against(what, 'COPY', data.count, seconds, copied, '>= 0.8')
    report.against('raw consume of that topic', 'COPY', data.count, consumed, copied)
    report.add('nexus_resume to the first batch', f'{spread(starts)} s')


def backlog(system, options, report):
    """The same with 2 million behind in 8 partitions, and the worker's memory."""
    data = system.data(options.backlog_rows, 8)
    warm_up(system, data)
    taken = [ingest_round(system, data, copy_first=n % 2 == 1) for n in range(options.rounds)]
    seconds, _, peaks_kb, copied = zip(*taken)

    report.against(f'ingest, {data.count} behind, 8 partitions', 'COPY', data.count, seconds, copied, '>= 0.8')
    report.add('  private memory of the ingest worker meanwhile, at most',
               f'{max(peaks_kb) / 1024:.1f} MiB', wanted='<= 32 MiB')


def workers(system, options, report):
    """8 partitions shared out among 2 workers, against 1."""
    data = system.data(options.rows, 8)
    taken = [[ingest_round(system, data, copy_first=False, workers=n)[0] for n in (1, 2)] for _ in range(options.rounds)]
    one, two = zip(*taken)
    report.against(f'ingest, {data.count} behind, 8 partitions, 2 workers', '1 worker', data.count, two, one)


def ingest_round(system, data, copy_first, workers=1):
    """Seconds of the pipeline, of its start, peak of its memory in kB, seconds of COPY; in a fresh database."""
    with system.fresh_database(data.topic) as cursor:
        create_copied(cursor)
        cursor.execute("UPDATE nexus_pipelines SET workers = %s", (workers,))
        copied = copy_seconds(cursor, data) if copy_first else None
        seconds, starting, peak_kb = pipeline_seconds(cursor, data)
        copied = copied or copy_seconds(cursor, data)
    return seconds, starting, peak_kb, copied


def warm_up(system, data):
    """The first to write so much makes the files of the WAL, which those after it find."""
    with system.fresh_database(data.topic) as cursor:
        create_copied(cursor)
        copy_seconds(cursor, data)


def create_copied(cursor):
    """What COPY fills: prospect_tracking's twin.

    COPY is one transaction, in which now() is the same for all rows. With that in received_at the
    B-tree of (fingerprint_id, received_at) would keep a fingerprint's entries as one and be half as
    large as that of the rows which the pipeline writes.
    """
    cursor.execute('CREATE TABLE copied (LIKE prospect_tracking INCLUDING ALL)')
    cursor.execute('ALTER TABLE copied ALTER received_at SET DEFAULT clock_timestamp()')


def copy_seconds(cursor, data):
    cursor.execute('CHECKPOINT')
    start = time.monotonic()
    cursor.execute(data.copy_sql('copied'))
    return time.monotonic() - start


def pipeline_seconds(cursor, data):
    """From the start of the first batch's transaction to the commit of the last one's; and what came before."""
    cursor.execute('CHECKPOINT')
    resumed = scalar(cursor, "SELECT clock_timestamp() FROM nexus_resume('prospect_tracking')")
    wait(cursor, f'SELECT EXISTS ({INGEST_PID})')
    peak = processes.Peak(scalar(cursor, INGEST_PID))
    wait(cursor, f'SELECT coalesce(sum("offset"), 0) >= {data.count} FROM nexus_offsets')
    end = scalar(cursor, 'SELECT clock_timestamp()')
    peak_kb = peak.stop()

    count, start = row(cursor, 'SELECT count(*), min(received_at) FROM prospect_tracking')
    if count != data.count:
        raise SystemExit(f'{count} rows of {data.count} arrived: {status(cursor)}')
    return (end - start).total_seconds(), (start - resumed).total_seconds(), peak_kb


def row(cursor, query):
    cursor.execute(query)
    return cursor.fetchone()


# ---------------------------------------------------------------- relay

RELAY_TOPIC = 'bench-relay'
PINNED_MESSAGES = 200_000


def relay(system, options, report):
    """A committed outbox published, against raw produce of the same; also with xmin held."""
    data = system.data(options.rows, 1)
    system.create_topic(RELAY_TOPIC)
    for _ in range(2):  # the broker's JVM gets slow code only at first
        raw_produce(system, data)
    taken = [relay_round(system, data) for _ in range(options.rounds)]
    free, pinned, raw = zip(*taken)

    report.against(f'relay, {data.count} sessions, outbox rows deleted', 'raw produce',
                   data.count, free, raw, '>= 0.4')
    report.against(f'  after {min(PINNED_MESSAGES, data.count)} under a held snapshot', 'relay without',
                   data.count, pinned, free, '>= 0.5')


def relay_round(system, data):
    """Seconds of the relay without and with a held snapshot, and of raw produce."""
    with system.fresh_database() as cursor:
        cursor.execute(f"SET nexus_kafka.topic = '{RELAY_TOPIC}'")
        make_bodies(cursor, data)
        publish_seconds(cursor, 1000)  # the relay is up and has its connection
        free = publish_seconds(cursor, data.count)
        with system.held_snapshot():
            publish_seconds(cursor, min(PINNED_MESSAGES, data.count))
            pinned = publish_seconds(cursor, data.count)
    return free, pinned, raw_produce(system, data)


def raw_produce(system, data):
    return system.raw('produce', RELAY_TOPIC, data.kafka_path, 'queue.buffering.max.messages=1000000')


def make_bodies(cursor, data):
    """The table bodies: what nexus_produce is called with for the sessions."""
    create_copied(cursor)
    cursor.execute(data.copy_sql('copied'))
    cursor.execute("""
        CREATE TABLE bodies AS
        SELECT "offset" AS n, jsonb_build_object('messages', messages, 'fingerprint', fingerprint_id,
                 'sessionId', session_id, 'metadata', metadata) AS body
        FROM copied""")
    cursor.execute('VACUUM ANALYZE bodies')


def publish_seconds(cursor, count):
    """From COMMIT of so many calls of nexus_produce to the broker's acknowledgement and an empty outbox."""
    cursor.execute('CHECKPOINT')
    cursor.execute('BEGIN')
    produced = scalar(cursor, 'SELECT count(nexus_produce(body)) FROM (SELECT body FROM bodies ORDER BY n LIMIT %s) b',
                      count)
    start = time.monotonic()
    cursor.execute('COMMIT')
    flushed = scalar(cursor, "SELECT nexus_flush('10 min')")
    wait(cursor, 'SELECT NOT EXISTS (SELECT FROM nexus_outbox)')
    seconds = time.monotonic() - start
    if not flushed or produced != count:
        raise SystemExit(f'{count} messages were not published: {status(cursor)}')
    return seconds


# ---------------------------------------------------------------- nexus_produce and INSERT

def produce(system, options, report):
    """pgbench, one client, synchronous_commit off: the call against the bare INSERT of its row."""
    system.create_topic('bench-produce')
    with system.fresh_database() as cursor:
        cursor.execute("SET nexus_kafka.topic = 'bench-produce'")
        write_scripts(system, cursor)
        for protocol in 'simple', 'prepared':
            compare_produce(system, options, report, protocol, 'relay publishing')
        stop_relay(cursor)
        for protocol in 'simple', 'prepared':
            compare_produce(system, options, report, protocol, 'no relay')
        cursor.execute('ALTER SYSTEM RESET nexus_kafka.bootstrap_servers')
        scalar(cursor, 'SELECT pg_reload_conf()')


def write_scripts(system, cursor):
    """produce.sql and insert.sql: a call, and the INSERT of the very row that the call writes."""
    payload = """{"messages": [{"role": "user", "content": "Hola, ¿cuánto cuesta la página web número 1?"}],
        "fingerprint": "fp-1", "sessionId": "session-1",
        "metadata": {"url": "https://example.com/prices", "userAgent": "Mozilla/5.0 (X11; Linux)"}}"""
    call = f"SELECT nexus_produce('{' '.join(payload.split())}'::jsonb);"
    cursor.execute('CREATE TABLE bare (LIKE nexus_outbox INCLUDING ALL)')
    cursor.execute('BEGIN')
    cursor.execute(call)
    insert = scalar(cursor, """
        SELECT format('INSERT INTO bare (topic, partition, key, value, headers, message_id, created_at)
                 VALUES (%L, %L, %L, %L, %L, %L, clock_timestamp());',
                 topic, partition, key, value, headers, message_id)
        FROM nexus_outbox""")
    cursor.execute('ROLLBACK')
    for name, sql in (('produce', call), ('insert', ' '.join(insert.split()))):
        write_script(system, name, sql)


def stop_relay(cursor):
    scalar(cursor, "SELECT nexus_flush('10 min')")
    cursor.execute("ALTER SYSTEM SET nexus_kafka.bootstrap_servers = ''")
    scalar(cursor, 'SELECT pg_reload_conf()')
    wait(cursor, "SELECT state FROM nexus_status WHERE kind = 'outbox'", 'not_configured')


def compare_produce(system, options, report, protocol, circumstances):
    calls, inserts = [], []
    for _ in range(options.rounds):
        inserts.append(pgbench_us(system, options, protocol, 'insert'))
        calls.append(pgbench_us(system, options, protocol, 'produce'))
    ratios = [call / insert for call, insert in zip(calls, inserts)]
    report.add(f'nexus_produce, {protocol} protocol, {circumstances}', f'{statistics.median(calls):.0f} µs',
               f'INSERT {statistics.median(inserts):.0f} µs', f'{statistics.median(ratios):.2f}', '<= 1.5')


def pgbench_us(system, options, protocol, script, clients=1):
    """Microseconds from one transaction to the next."""
    output = run_pgbench(system, options, script, '-M', protocol, '-c', str(clients))
    return 1e6 / float(re.search(r'tps = ([\d.]+)', output)[1])


def write_script(system, name, sql):
    with open(script_path(system, name), 'w', encoding='utf-8') as script:
        script.write(sql + '\n')


def run_pgbench(system, options, script, *args):
    environment = {**os.environ, 'PGOPTIONS': '-c synchronous_commit=off -c nexus_kafka.topic=bench-produce'}
    return subprocess.run(
        ['pgbench', '-n', '-j', '2', '-T', str(options.seconds), *args, '-h', system.host, '-p', str(system.port),
         '-U', system.user, '-f', script_path(system, script), 'bench'],
        check=True, text=True, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout


def script_path(system, name):
    return os.path.join(system.directory, f'{name}.sql')


# ---------------------------------------------------------------- nexus_produce_now

def now(system, options, report):
    """Calls a second that each wait for the broker's answer: one backend, and 50."""
    system.create_topic('bench-now')
    write_script(system, 'now', f"SELECT nexus_produce_now('bench-now', '{'x' * 350}');")
    compare_now(system, options, report, 'one broker')
    for milliseconds, away in (0, ''), (1, ', 1 to 2 ms away each way'):
        with system.three_brokers('bench-now', milliseconds):
            compare_now(system, options, report, f'three brokers by SASL_SSL, min.insync.replicas 2{away}')


def compare_now(system, options, report, circumstances):
    rates = {1: [], 50: []}
    with system.fresh_database() as cursor:
        wait(cursor, "SELECT state FROM nexus_status WHERE kind = 'outbox'", 'running')
        for _ in range(3):
            pgbench_us(system, options, 'prepared', 'now', 50)  # the brokers' JVMs have slow code only at first
        for _ in range(options.rounds):
            for clients, taken in rates.items():
                taken.append(1e6 / pgbench_us(system, options, 'prepared', 'now', clients))
    ratios = [many / one for one, many in zip(rates[1], rates[50])]
    report.add(f'nexus_produce_now, 50 backends, {circumstances}', f'{statistics.median(rates[50]):.0f} calls/s',
               f'1 backend {statistics.median(rates[1]):.0f} calls/s', spread(ratios), '>= 20')


# ---------------------------------------------------------------- latency

def latency(system, options, report):
    """COMMIT of nexus_produce to the row visible, one at a time."""
    system.create_topic('nexus-prospect-ingestion')
    rounds = []
    for _ in range(options.rounds):
        with system.fresh_database(paused=False) as cursor:
            wait(cursor, "SELECT bool_and(state = 'running') FROM nexus_status")
            output = system.run('latency', system.conninfo(), '1000', '5')
        rounds.append(sorted(float(line) for line in output.split()))

    for what, n, wanted in ('p50', 500, '<= 3 ms'), ('p99', 990, '<= 20 ms'), ('max', 1000, ''):
        figures = [taken[n - 1] for taken in rounds]
        report.add(f'commit of nexus_produce to the row visible, {what} of 1000',
                   f'{spread(figures)} ms', wanted=wanted)


# ---------------------------------------------------------------- idle

def idle(system, options, report):
    """Nothing to do: memory, wakeups and CPU time of each of the extension's processes."""
    system.create_topic('nexus-prospect-ingestion')
    with system.fresh_database(paused=False) as cursor:
        wait(cursor, "SELECT bool_and(state = 'running') FROM nexus_status")
        scalar(cursor, "SELECT nexus_consume(timeout => '1 min')")
        time.sleep(options.idle_seconds / 3)  # what the start and the question have set off calms down
        cursor.execute(WORKERS)
        workers = cursor.fetchall()
        before = [observed(pid) for _, pid in workers]
        time.sleep(options.idle_seconds)
        after = [observed(pid) for _, pid in workers]
        memory = [(processes.private_kb(pid), processes.rss_kb(pid)) for _, pid in workers]

    spent = [[(b - a) / options.idle_seconds for a, b in zip(*pair)] for pair in zip(before, after)]
    for (name, _), (main, threads, cpu), (private_kb, rss_kb) in zip(workers, spent, memory):
        report.add(f'idle {name}', f'{main:.2f} wakeups/s ({threads:.1f} with librdkafka), {cpu * 1000:.1f} ms CPU/s, '
                   f'private {private_kb / 1024:.1f} MiB, RSS {rss_kb / 1024:.1f} MiB')
    main, _, cpu = map(sum, zip(*spent))
    report.add('idle, all together', f'{main:.2f} wakeups/s, {cpu * 1000:.1f} ms CPU/s', wanted='<= 5/s, 0 ms')


def observed(pid):
    return processes.wakeups(pid), processes.thread_wakeups(pid), processes.cpu_seconds(pid)


# ---------------------------------------------------------------- a broker that is far off

def far(system, options, report):
    """CPU time of the relay while rows come at a rate, and the broker is 10 to 20 ms away each way."""
    write_script(system, 'far', f"SELECT nexus_produce('bench-far', '{'x' * 350}');")
    with system.far_broker('bench-far', 10), system.fresh_database() as cursor:
        wait(cursor, "SELECT state FROM nexus_status WHERE kind = 'outbox'", 'running')
        pid = scalar(cursor, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'nexus_kafka relay'")
        for rate in 200, 2000:
            cores = []
            for _ in range(options.rounds):
                before, start = processes.cpu_seconds(pid), time.monotonic()
                run_pgbench(system, options, 'far', '-c', '4', '-R', str(rate))
                cores.append((processes.cpu_seconds(pid) - before) / (time.monotonic() - start))
            report.add(f'relay, {rate} rows/s, broker 10 to 20 ms away each way',
                       f'{statistics.median(cores):.3f} cores')


ALL = {part.__name__: part for part in (ingest, relay, produce, now, latency, answers, snapshot, far, idle, workers,
                                         backlog)}
