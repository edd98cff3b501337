"""How long a session waits for an answer when there is nothing to wait for, and a reader that starts by time."""

import statistics
import time

from system import scalar, wait

TOPIC = 'nexus-prospect-ingestion'
WANTED_MEDIAN, WANTED_MOST = 30, 200  # ms
SESSION = '{"messages": [{"role": "user", "content": "x"}], "fingerprint": "f", "sessionId": "s"}'
STATEMENT = 'INSERT INTO taken (place) SELECT "offset" FROM nexus_messages()'


def answers(system, options, report):
    """nexus_consume, nexus_flush, nexus_topics, and seek and start by time; one broker, and three."""
    system.create_topic(TOPIC)
    answers_of(system, options, report, 'one broker')
    with system.three_brokers(TOPIC, 0):
        answers_of(system, options, report, 'three brokers by SASL_SSL')


def answers_of(system, options, report, where):
    with system.fresh_database(paused=False) as cursor:
        wait(cursor, "SELECT bool_and(state = 'running') FROM nexus_status")
        scalar(cursor, "SELECT nexus_consume(timeout => '1 min')")
        for call in 'nexus_consume()', 'nexus_flush()', 'nexus_topics()':
            times = [milliseconds(lambda: cursor.execute(f'SELECT count(*) FROM {call}'))
                     for _ in range(options.calls)]
            add(report, f'{call}, nothing to wait for, {where}', times)
        make_messages(cursor)
        add(report, f'pause, seek by time, resume, first row, {where}',
            [sought(cursor) for _ in range(options.calls // 5)])
        cursor.execute("SELECT nexus_drop_pipeline('answers')")
        add(report, f'a new pipeline that starts by time, first row, {where}',
            [started(cursor) for _ in range(options.calls // 5)])


def make_messages(cursor):
    """Some, of which half came before the moment that seek and start name; and a pipeline that has them all."""
    cursor.execute('CREATE TABLE taken (n bigserial PRIMARY KEY, place bigint)')
    cursor.execute('CREATE TABLE moment (at timestamptz)')
    create_pipeline(cursor, 'earliest')
    publish(cursor, 500)
    wait(cursor, 'SELECT count(*) >= 500 FROM taken')
    cursor.execute('INSERT INTO moment SELECT clock_timestamp()')
    time.sleep(0.01)  # Kafka's times are whole milliseconds
    publish(cursor, 500)
    wait(cursor, 'SELECT count(*) >= 1000 FROM taken')


def publish(cursor, count):
    cursor.execute('SELECT count(nexus_produce(%s::jsonb)) FROM generate_series(1, %s)', (SESSION, count))
    scalar(cursor, "SELECT nexus_flush('10 min')")


def create_pipeline(cursor, start):
    cursor.execute("SELECT nexus_create_pipeline('answers', %s, %s, jsonb_build_object('start', %s))",
                   (TOPIC, STATEMENT, start))


def sought(cursor):
    last = last_row(cursor)

    def seek():
        cursor.execute("SELECT nexus_pause('answers')")
        cursor.execute("SELECT nexus_seek('answers', (SELECT at::text FROM moment))")
        cursor.execute("SELECT nexus_resume('answers')")
        wait_for_row_after(cursor, last)

    return milliseconds(seek)


def started(cursor):
    last = last_row(cursor)

    def start():
        create_pipeline(cursor, scalar(cursor, 'SELECT at::text FROM moment'))
        wait_for_row_after(cursor, last)

    taken = milliseconds(start)
    cursor.execute("SELECT nexus_drop_pipeline('answers')")
    return taken


def last_row(cursor):
    """Of a pipeline that has taken in all; else rows that are under way would be taken for new ones."""
    scalar(cursor, "SELECT count(nexus_consume(name, '1 min')) FROM nexus_pipelines WHERE name = 'answers'")
    return scalar(cursor, 'SELECT coalesce(max(n), 0) FROM taken')


def wait_for_row_after(cursor, last):
    wait(cursor, f'SELECT EXISTS (SELECT FROM taken WHERE n > {last})', seconds=0.001)


def milliseconds(action):
    start = time.monotonic()
    action()
    return (time.monotonic() - start) * 1000


def add(report, what, times):
    report.add(what, f'median {statistics.median(times):.1f} ms, at most {max(times):.1f} ms, of {len(times)}',
               wanted=f'<= {WANTED_MEDIAN}, {WANTED_MOST} ms')
