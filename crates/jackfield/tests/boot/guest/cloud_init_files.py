# Prints all files that Python opens when cloud-init is loaded, on this machine, for a guest.
import os
import sys

files = set()


def note(event, arguments):
    if event == "open" and isinstance(arguments[0], str):
        files.add(arguments[0])


sys.addaudithook(note)

import cloudinit.cmd.main
import cloudinit.distros.debian
import cloudinit.sources.DataSourceNoCloud
import encodings.ascii
import encodings.idna
import encodings.latin_1

for module in list(sys.modules.values()):
    files.update((getattr(module, "__file__", None), getattr(module, "__cached__", None)))
files.discard(None)
print("\n".join(sorted(f for f in files if f.startswith("/usr/lib/") and os.path.isfile(f))))
