#!/usr/bin/env python3
"""A shared access signature of the account that start-azurite made:  azure-sas.py ENVFILE PERMISSIONS

ENVFILE is what start-azurite left in DIR/env; PERMISSIONS are of r(ead) w(rite) d(elete) l(ist), in this order. Good for
a day, for all containers and what is in them.
"""
import base64, datetime, hashlib, hmac, sys
from urllib.parse import urlencode

if len(sys.argv) != 3 or sys.argv[1].startswith("-"):
    sys.exit(__doc__.strip())
env = dict(line.strip().split("=", 1) for line in open(sys.argv[1]) if "=" in line)
now = datetime.datetime.now(datetime.timezone.utc)
start, end = ((now + datetime.timedelta(hours=h)).strftime("%Y-%m-%dT%H:%M:%SZ") for h in (-1, 24))
fields = {"sp": sys.argv[2], "ss": "b", "srt": "co", "st": start, "se": end, "sip": "", "spr": "https,http", "sv": "2019-12-12"}
text = "".join(f"{field}\n" for field in (env["AZURE_ACCOUNT"], *fields.values()))
signature = hmac.new(base64.b64decode(env["AZURE_KEY"]), text.encode(), hashlib.sha256).digest()
given = {name: value for name, value in fields.items() if value}
print(urlencode({**given, "sig": base64.b64encode(signature).decode()}))
