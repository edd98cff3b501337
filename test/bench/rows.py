"""The sessions of the benchmark, the same ones for every way that they are taken.

Two files hold them: what goes to Kafka (partition, key, value) and what COPY reads
(the columns of prospect_tracking).
"""

import hashlib

FIRST_MS = 1_760_000_000_000
COLUMNS = 'message_id, fingerprint_id, session_id, messages, metadata, enqueued_at, topic, partition, "offset"'


def message_id(i):
    """A UUIDv7, as nexus_produce makes them: in the order of time, 10 a millisecond."""
    time = f'{FIRST_MS + i // 10:012x}'
    random = hashlib.md5(str(i).encode()).hexdigest()
    return f'{time[:8]}-{time[8:]}-7{random[:3]}-{8 + i % 4:x}{random[3:6]}-{random[6:18]}'


def enqueued_at(i):
    second, tenth = divmod(i // 1000, 10)
    return f'2025-10-09T{second // 3600 % 24:02}:{second // 60 % 60:02}:{second % 60:02}.{tenth}00Z'


def write(kafka_path, copy_path, topic, count, partitions):
    """Writes both files; returns the mean size of a value in bytes."""
    size = 0
    with open(kafka_path, 'w', encoding='utf-8') as kafka, open(copy_path, 'w', encoding='utf-8') as copy:
        for i in range(count):
            key, fingerprint, session, time = message_id(i), f'fp-{i % 50000}', f'session-{i}', enqueued_at(i)
            messages = f'[{{"role":"user","content":"Hola, ¿cuánto cuesta la página web número {i}?"}}]'
            metadata = ('{"url":"https://example.com/prices","userAgent":"Mozilla/5.0 (X11; Linux)",'
                        f'"enqueuedAt":"{time}","producerVersion":"1.0"}}')
            value = (f'{{"messages":{messages},"fingerprint":"{fingerprint}","sessionId":"{session}",'
                     f'"metadata":{metadata},"messageId":"{key}"}}')
            offset, partition = divmod(i, partitions)
            size += len(value.encode())
            kafka.write(f'{partition}\t{key}\t{value}\n')
            copy.write(f'{key}\t{fingerprint}\t{session}\t{messages}\t{metadata}\t{time}\t'
                       f'{topic}\t{partition}\t{offset}\n')
    return size / count
