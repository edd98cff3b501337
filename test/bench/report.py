"""The table of results: a line a figure, printed as it comes and once more at the end."""

import statistics

HEADS = ('what', 'measured', 'yardstick', 'ratio', 'wanted')


def spread(values, form='{:.2f}'):
    """The median, and in brackets the single rounds where there were several."""
    median = form.format(statistics.median(values))
    if len(values) == 1:
        return median
    return f'{median} ({" / ".join(form.format(value) for value in values)})'


def rates(count, seconds):
    """Thousands a second."""
    return spread([count / s / 1000 for s in seconds], '{:.0f}') + ' k/s'


class Report:
    def __init__(self):
        self.lines = []

    def add(self, what, measured, yardstick='', ratio='', wanted=''):
        self.lines.append((what, measured, yardstick, ratio, wanted))
        print('  ' + ' | '.join(cell for cell in self.lines[-1] if cell), flush=True)

    def against(self, what, name, count, seconds, yardstick_seconds, wanted=''):
        """A rate against another rate, and their ratio round by round."""
        ratios = [y / s for s, y in zip(seconds, yardstick_seconds)]
        self.add(what, rates(count, seconds), f'{name} {rates(count, yardstick_seconds)}', spread(ratios), wanted)

    def table(self):
        rows = [HEADS, *self.lines]
        widths = [max(len(row[i]) for row in rows) for i in range(len(HEADS))]
        lines = ['| ' + ' | '.join(cell.ljust(width) for cell, width in zip(row, widths)) + ' |' for row in rows]
        lines.insert(1, '|' + '|'.join('-' * (width + 2) for width in widths) + '|')
        return '\n'.join(lines)
