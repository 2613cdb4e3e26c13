"""A folder on a real disk for the cache of each device whose disk reads are limited: /run/box is in memory, where no
control group counts reads.

They are below build/, named after the box's process like its control groups, and removed at its end or by the next
box.
"""
import os
import re
import shutil

from lib.limits import PREFIX, start_time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__)))))
PLACE = os.path.join(ROOT, os.environ.get("BUILD", "build/release"), "cluster")


def folder(box_name, device):
    path = os.path.join(PLACE, box_name, device)
    os.makedirs(path)
    return path


def remove(box_name):
    shutil.rmtree(os.path.join(PLACE, box_name), ignore_errors=True)


def remove_stale():
    """Names removed."""
    gone = set()
    for name in os.listdir(PLACE) if os.path.isdir(PLACE) else []:
        found = re.fullmatch(PREFIX + r"(\d+)-(\d+)", name)
        if found and start_time(found[1]) != found[2]:
            remove(name)
            gone.add(name)
    return gone
