"""From a folder of raw pictures to a trained convnet to a transfer table.

README's "Rooms" lists the rooms; imports go down that list only, which tests/test_rooms.py sees to.
"""
