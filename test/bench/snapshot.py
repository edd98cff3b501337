"""What a snapshot that is held elsewhere costs: the dead row versions that it keeps must not slow anything down."""

import statistics

from answers import SESSION, TOPIC, milliseconds
from report import spread
from system import scalar, wait

WANTED = '<= 2'
CALLS = {
    'nexus_produce and nexus_flush': (f"SELECT nexus_produce('{SESSION}'::jsonb)", "SELECT nexus_flush('1 min')"),
    'nexus_flush, nothing to wait for': ("SELECT nexus_flush('1 min')",),
    'nexus_consume, nothing to wait for': ("SELECT nexus_consume('batches', '1 min')",),
}


def snapshot(system, options, report):
    """Batches of one message, and flush and consume beside dead rows of the outbox, with and without a held snapshot."""
    system.create_topic(TOPIC)
    data = system.data(options.batches, 1)
    taken = [(batches_round(system, data, held=False), batches_round(system, data, held=True))
             for _ in range(options.rounds)]
    free, held = ([whole for whole, _ in runs] for runs in zip(*taken))
    growth = [fifths[-1] / fifths[0] for _, (_, fifths) in taken]
    report.add(f'{data.count} batches of one message, under a held snapshot', f'{spread(held)} s',
               f'without {spread(free)} s', spread([h / f for f, h in zip(free, held)]), WANTED)
    report.add('  the last fifth of them against the first', '', '', spread(growth), WANTED)
    dead_rows(system, options, report)


def batches_round(system, data, held):
    """Seconds from the first row to the last, and of each fifth."""
    with system.fresh_database() as cursor:
        cursor.execute('CREATE TABLE taken (place bigint, at timestamptz DEFAULT clock_timestamp())')
        with system.held_snapshot(held):
            create_pipeline(cursor, data.topic)
            wait(cursor, f'SELECT count(*) >= {data.count} FROM taken', seconds=0.5)
        cursor.execute("""
            SELECT extract(epoch FROM max(at) - min(at))::float FROM
              (SELECT at, ntile(5) OVER (ORDER BY at) AS fifth FROM taken) t
            GROUP BY GROUPING SETS ((), (fifth)) ORDER BY grouping(fifth) DESC, fifth""")
        whole, *fifths = (seconds for seconds, in cursor.fetchall())
    return whole, fifths


def dead_rows(system, options, report):
    with system.fresh_database() as cursor:
        cursor.execute('CREATE TABLE taken (place bigint)')
        create_pipeline(cursor, TOPIC, batch_messages=1000)
        wait(cursor, "SELECT bool_and(state = 'running') FROM nexus_status WHERE name <> 'prospect_tracking'")
        free = {what: times_of(cursor, options, calls) for what, calls in CALLS.items()}
        with system.held_snapshot():
            make_dead_rows(cursor, options.dead_rows)
            held = {what: times_of(cursor, options, calls) for what, calls in CALLS.items()}
    for what in CALLS:
        report.add(f'{what}, {options.dead_rows} dead rows in the outbox', in_words(held[what]),
                   f'none {in_words(free[what])}',
                   f'{statistics.median(held[what]) / statistics.median(free[what]):.2f}', WANTED)


def make_dead_rows(cursor, count):
    """Published, acknowledged and deleted, and still there for who holds the snapshot."""
    cursor.execute("SELECT count(nexus_produce(%s, '{}'::jsonb)) FROM generate_series(1, %s)", (TOPIC, count))
    scalar(cursor, "SELECT nexus_flush('10 min')")
    wait(cursor, 'SELECT NOT EXISTS (SELECT FROM nexus_outbox)')
    scalar(cursor, "SELECT nexus_consume('batches', '10 min')")


def create_pipeline(cursor, topic, batch_messages=1):
    cursor.execute("SELECT nexus_create_pipeline('batches', %s, %s, jsonb_build_object('batch_messages', %s))",
                   (topic, 'INSERT INTO taken (place) SELECT "offset" FROM nexus_messages()', batch_messages))


def times_of(cursor, options, statements):
    return [milliseconds(lambda: [cursor.execute(s) for s in statements]) for _ in range(options.calls)]


def in_words(times):
    return f'{statistics.median(times):.1f} ms, at most {max(times):.1f}'
