"""From a folder of raw pictures to a trained convnet to a transfer table.

The rooms, in the order in which data flows and below which nothing imports upward:
config, data, models, monitor, train, transfer, study, report.
"""
