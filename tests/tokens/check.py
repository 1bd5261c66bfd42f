"""Holds the lines of make.py and its relatives against `signaling-server doctor --token -`, which decides as the server does."""

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter

server, lines = sys.argv[1:]
home = tempfile.mkdtemp()
hash_of_password = "$2b$04$PNdffZl.HgEeyIRjlAqU7e3sDURzEN7C7i/Y9Dnc..easEWd1ZvJy"
with open(os.path.join(home, "users.csv"), "w", encoding="utf-8") as users:
    users.write(f"username,email,hashed_password,is_active\nalice,a@example.com,{hash_of_password},True\n")
environment = {"JWT_SECRET_KEY": os.environ["JWT_SECRET_KEY"], "SECRET_KEY": "2f0a7d5c9b1e4836a0c7d5e9f1b2a3c4"}
counts, wrong = Counter(), 0
with open(lines, encoding="utf-8") as tokens:
    for line in tokens:
        maker, form, expected, token = line.rstrip("\n").split("\t")
        done = subprocess.run([server, "doctor", "--json", "--token", "-"], input=token, env=environment, cwd=home, text=True, capture_output=True)
        faults = [it["message"] for it in json.loads(done.stdout) if it["verdict"] == "fault"]
        fits = faults == [] if expected == "ok" else any(expected in fault for fault in faults)
        counts[maker] += 1
        if not fits:
            wrong += 1
            print(f"{maker}, {form}: expected {expected}, found {faults}")
print(f"{sum(counts.values())} tokens by {len(counts)} libraries, {wrong} wrong:", ", ".join(f"{maker} {count}" for maker, count in counts.items()))
sys.exit(wrong > 0)
