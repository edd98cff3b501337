"""What the kernel knows of a process: memory, wakeups, CPU time."""

import os
import threading

TICK = os.sysconf('SC_CLK_TCK')


def private_kb(pid):
    """Private_Clean + Private_Dirty, without shared mappings.

    The kernel calls a page of shared_buffers private while no other process has
    touched it, so smaps_rollup's sum grows with the table and says nothing of the
    worker; the mappings (smaps) tell them apart.
    """
    total, shared = 0, False
    with open(f'/proc/{pid}/smaps', encoding='ascii', errors='replace') as smaps:
        for line in smaps:
            word, rest = line.split(None, 1)
            if not word.endswith(':'):
                shared = rest[3] == 's'
            elif not shared and word in ('Private_Clean:', 'Private_Dirty:'):
                total += int(rest.split()[0])
    return total


def rss_kb(pid):
    """Resident memory without what is shared (shared_buffers counts only while touched)."""
    status = _status(f'/proc/{pid}/status')
    return int(status['RssAnon'].split()[0]) + int(status['RssFile'].split()[0])


def wakeups(pid):
    """How often the main thread has gone to sleep."""
    return int(_status(f'/proc/{pid}/task/{pid}/status')['voluntary_ctxt_switches'])


def thread_wakeups(pid):
    """The same of all threads: those of librdkafka too."""
    return sum(int(_status(f'/proc/{pid}/task/{tid}/status')['voluntary_ctxt_switches'])
               for tid in os.listdir(f'/proc/{pid}/task'))


def cpu_seconds(pid):
    """User and system time of the whole process."""
    with open(f'/proc/{pid}/stat', encoding='ascii') as stat:
        fields = stat.read().rsplit(')', 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def _status(path):
    with open(path, encoding='ascii') as status:
        return dict(line.rstrip('\n').split(':\t', 1) for line in status if ':\t' in line)


class Peak(threading.Thread):
    """Samples a process's private memory until stop(); peak_kb is the largest."""

    def __init__(self, pid, seconds=0.2):
        super().__init__(daemon=True)
        self.pid, self.seconds, self.peak_kb, self._stop_event = pid, seconds, 0, threading.Event()
        self.start()

    def run(self):
        while not self._stop_event.wait(self.seconds):
            self.peak_kb = max(self.peak_kb, private_kb(self.pid))

    def stop(self):
        self._stop_event.set()
        self.join()
        return self.peak_kb
