"""What the benchmark runs on: a Kafka broker and a PostgreSQL of its own.

setup.pl makes both, with the modules of the tests; they end when its standard input
does, so also when this process dies.
"""

import contextlib
import json
import os
import subprocess
import time

import rows

HERE = os.path.dirname(os.path.abspath(__file__))
DATABASE = 'bench'
GIVE_UP = 600  # seconds


class System:
    def __init__(self, directory):
        self.directory = directory
        self._data, self._topics = {}, set()
        self._setup = subprocess.Popen(os.path.join(HERE, 'setup.pl'), text=True, stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE)
        facts = self._setup.stdout.readline()
        if not facts:
            raise SystemExit('no broker or no server, see above')
        self.__dict__.update(json.loads(facts))  # host, port, bootstrap

    def stop(self):
        self._setup.stdin.close()
        self._setup.wait()

    # ---- PostgreSQL

    def conninfo(self, database=DATABASE):
        return f'host={self.host} port={self.port} dbname={database} user={self.user}'

    def connect(self, database=DATABASE):
        import psycopg2  # only here, so that --help works without it
        connection = psycopg2.connect(self.conninfo(database))
        connection.autocommit = True
        return connection.cursor()

    @contextlib.contextmanager
    def fresh_database(self, topic='nexus-prospect-ingestion', paused=True):
        """A cursor in a new database with the extension, its pipeline on that topic."""
        admin = self.connect('postgres')
        admin.execute(f'DROP DATABASE IF EXISTS {DATABASE}')
        admin.execute(f'CREATE DATABASE {DATABASE}')
        cursor = self.connect()
        cursor.execute('BEGIN; CREATE EXTENSION nexus_kafka;'
                       f"UPDATE nexus_pipelines SET topic = '{topic}', paused = {paused}; COMMIT")
        try:
            yield cursor
        finally:
            cursor.connection.close()
            admin.execute(f'DROP DATABASE {DATABASE}')
            admin.connection.close()

    @contextlib.contextmanager
    def held_snapshot(self, held=True):
        """Meanwhile a transaction elsewhere sees all that was there at its beginning, if it is to."""
        cursor = self.connect()
        if held:
            cursor.execute('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class')
        yield
        cursor.connection.close()

    # ---- Kafka

    def create_topic(self, topic, partitions=1):
        if topic in self._topics:
            return
        self._topics.add(topic)
        self._order(f'topic {topic} {partitions}')

    def three_brokers(self, topic, milliseconds):
        """Meanwhile the server uses a cluster of three, with that topic, by SASL_SSL, that is so far off each way."""
        return self._elsewhere(f'cluster {topic} {milliseconds}')

    def far_broker(self, topic, milliseconds):
        """Meanwhile the server uses another broker, with that topic, that is so far off each way."""
        return self._elsewhere(f'far {topic} {milliseconds}')

    @contextlib.contextmanager
    def _elsewhere(self, order):
        self._order(order)
        try:
            yield
        finally:
            self._order('single')

    def _order(self, order):
        print(order, file=self._setup.stdin, flush=True)
        if self._setup.stdout.readline() != 'done\n':
            raise SystemExit(f'not done: {order}')

    def raw(self, *args):
        """Seconds that raw (raw.c) took."""
        return float(self.run('raw', args[0], self.bootstrap, *map(str, args[1:])))

    def run(self, program, *args):
        return subprocess.run([os.path.join(self.directory, program), *args],
                              check=True, text=True, stdout=subprocess.PIPE).stdout

    def data(self, count, partitions):
        """The files and the filled topic of so many sessions; made once."""
        if (count, partitions) not in self._data:
            self._data[count, partitions] = Data(self, count, partitions)
        return self._data[count, partitions]


class Data:
    def __init__(self, system, count, partitions):
        self.count, self.partitions = count, partitions
        self.topic = f'bench-{count}-{partitions}'
        self.kafka_path = os.path.join(system.directory, f'{self.topic}.kafka')
        self.copy_path = os.path.join(system.directory, f'{self.topic}.copy')
        self.value_bytes = rows.write(self.kafka_path, self.copy_path, self.topic, count, partitions)
        system.create_topic(self.topic, partitions)
        system.raw('produce', self.topic, self.kafka_path)

    def copy_sql(self, table):
        return f"COPY {table} ({rows.COLUMNS}) FROM '{self.copy_path}'"


def scalar(cursor, query, *args):
    cursor.execute(query, args or None)
    return cursor.fetchone()[0]


def wait(cursor, query, expected=True, seconds=0.005):
    """Asks until the answer is the expected one, each time so much later."""
    deadline = time.monotonic() + GIVE_UP
    while (answer := scalar(cursor, query)) != expected:
        if time.monotonic() > deadline:
            raise SystemExit(f'timed out: {query} answered {answer}; {status(cursor)}')
        time.sleep(seconds)


def status(cursor):
    return scalar(cursor, 'SELECT jsonb_pretty(jsonb_agg(s)) FROM nexus_status s')
