"""The database's shape, as the steps that lead to it; a step that anyone may have taken never changes."""

from __future__ import annotations

_FIRST = """
CREATE TABLE account (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  mode TEXT NOT NULL
) STRICT;
INSERT INTO account (one, mode) VALUES (1, 'warn');

CREATE TABLE sandboxes (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  status TEXT NOT NULL,
  reason TEXT,
  deleting INTEGER NOT NULL DEFAULT 0,
  public_key TEXT NOT NULL,
  engine TEXT NOT NULL,
  image TEXT NOT NULL,
  cpus REAL,
  memory INTEGER,
  disk INTEGER,
  mode TEXT,
  ssh_port INTEGER UNIQUE,
  username TEXT,
  host_keys TEXT NOT NULL DEFAULT '',
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT;

-- An empty sandbox is the account's own list.
CREATE TABLE rules (
  id INTEGER PRIMARY KEY,
  sandbox TEXT NOT NULL,
  pattern TEXT NOT NULL,
  list TEXT NOT NULL,
  private TEXT NOT NULL,
  broad INTEGER NOT NULL,
  note TEXT,
  created_at INTEGER NOT NULL,
  UNIQUE (sandbox, pattern)
) STRICT;

-- Whom events are about; outlives the sandbox for as long as its events do.
CREATE TABLE subjects (
  id INTEGER PRIMARY KEY,
  sandbox TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  events INTEGER NOT NULL DEFAULT 0,
  gone_at INTEGER
) STRICT;
CREATE INDEX subjects_name ON subjects (name);

-- AUTOINCREMENT: an id is a page token, and is never given twice.
CREATE TABLE events (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  subject INTEGER NOT NULL,
  at INTEGER NOT NULL,
  host TEXT NOT NULL,
  port INTEGER,
  protocol TEXT,
  allowed INTEGER NOT NULL,
  verdict TEXT NOT NULL,
  mode TEXT,
  rule TEXT,
  reason TEXT,
  address TEXT,
  count INTEGER NOT NULL,
  bytes_in INTEGER,
  bytes_out INTEGER,
  duration_ms INTEGER,
  ended TEXT
) STRICT;
CREATE INDEX events_subject ON events (subject);

-- How far each log of a gateway worker was taken in; seq holds when the file is read again.
CREATE TABLE runs (
  run TEXT PRIMARY KEY,
  offset INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  finished INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Attempts whose closing record has not come; event is NULL until the verdict.
CREATE TABLE attempts (
  run TEXT NOT NULL,
  conn INTEGER NOT NULL,
  event INTEGER,
  opened TEXT NOT NULL,
  PRIMARY KEY (run, conn)
) STRICT, WITHOUT ROWID;

CREATE TABLE keys (
  id TEXT PRIMARY KEY,
  label TEXT NOT NULL,
  hash BLOB NOT NULL UNIQUE,
  created_at INTEGER NOT NULL,
  used_at INTEGER
) STRICT;
"""

_CAUSES = """
ALTER TABLE events ADD COLUMN cause TEXT;
ALTER TABLE events ADD COLUMN outcome TEXT;
"""

_SERVED = """
-- Which workers of the gateway serve or served which cell; before there were several there was worker 0.
CREATE TABLE served (
  cell TEXT NOT NULL,
  worker INTEGER NOT NULL,
  PRIMARY KEY (cell, worker)
) STRICT, WITHOUT ROWID;
INSERT INTO served (cell, worker) SELECT sandbox, 0 FROM subjects UNION SELECT id, 0 FROM sandboxes;
"""

_SUMMARIES = """
ALTER TABLE events ADD COLUMN domain TEXT;
-- How many events made room for others, and the latest time of one that did.
ALTER TABLE subjects ADD COLUMN rotated INTEGER NOT NULL DEFAULT 0;
ALTER TABLE subjects ADD COLUMN rotated_before INTEGER;

-- What a sandbox tried, by host: outlasts the events. A port of 0 is none, or several; folded is 1 for all of a
-- registrable domain and 2 for the rest; passed is 0 where no server was reached.
CREATE TABLE summaries (
  subject INTEGER NOT NULL,
  host TEXT NOT NULL,
  port INTEGER NOT NULL,
  verdict TEXT NOT NULL,
  passed INTEGER NOT NULL,
  folded INTEGER NOT NULL,
  domain TEXT NOT NULL,
  first INTEGER NOT NULL,
  last INTEGER NOT NULL,
  count INTEGER NOT NULL,
  bytes_in INTEGER NOT NULL,
  bytes_out INTEGER NOT NULL,
  PRIMARY KEY (subject, host, port, verdict, passed)
) STRICT, WITHOUT ROWID;

INSERT INTO summaries
SELECT subject, host, ifnull(port, 0), verdict, verdict <> 'blocked', 0, '', min(at), max(at),
  CAST(min(total(count), 4e15) AS INTEGER), CAST(min(total(bytes_in), 4e15) AS INTEGER),
  CAST(min(total(bytes_out), 4e15) AS INTEGER)
FROM events GROUP BY subject, host, ifnull(port, 0), verdict;
"""

_NOTABLE = """
-- What people ask for are the few events that are not as they should be; the queries repeat these terms.
CREATE INDEX events_against ON events (subject) WHERE verdict <> 'allowed';
CREATE INDEX events_lost ON events (subject) WHERE outcome IN ('unresolved', 'unreached');
"""

_FLEETS = """
ALTER TABLE sandboxes ADD COLUMN labels TEXT NOT NULL DEFAULT '{}';
-- Why a sandbox is gone, where nobody asked for it.
ALTER TABLE subjects ADD COLUMN gone_why TEXT;

-- How long a sandbox may live, and how long it may be idle; times are microseconds, ttl and idle_stop seconds.
-- ends_boot and idle_since are of CLOCK_BOOTTIME in the boot that boot names; after a reboot ends_at (wall clock) counts,
-- and at most what was left when it was noted.
CREATE TABLE terms (
  sandbox TEXT PRIMARY KEY,
  ttl INTEGER,
  remove INTEGER NOT NULL DEFAULT 0,
  boot TEXT NOT NULL DEFAULT '',
  ends_boot INTEGER,
  ends_at INTEGER,
  remaining INTEGER,
  idle_stop INTEGER,
  idle_since INTEGER,
  idle_used INTEGER
) STRICT;
"""

_HOLDS = """
-- Sandboxes that are destroyed when the client that made them is gone.
CREATE TABLE holds (
  sandbox TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
"""

_ENTRYPOINT = """
-- Whether a sandbox runs the entrypoint of its image at each start.
ALTER TABLE sandboxes ADD COLUMN entrypoint INTEGER NOT NULL DEFAULT 0;
"""

_CONNECTIONS = """
-- The id of the connection in the gateway's log lines.
ALTER TABLE events ADD COLUMN connection TEXT;
"""

_NOTE = """
-- The note that a sandbox was created with.
ALTER TABLE sandboxes ADD COLUMN note TEXT NOT NULL DEFAULT '';
"""

_CHANGES = """
-- What was changed, by whom and when; uid and key are NULL where the control plane did it by itself. Ids are never given twice.
CREATE TABLE changes (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  at INTEGER NOT NULL,
  what TEXT NOT NULL,
  uid INTEGER,
  key_id TEXT,
  key_label TEXT,
  face TEXT NOT NULL DEFAULT '',
  request TEXT NOT NULL DEFAULT '',
  sandbox TEXT NOT NULL DEFAULT '',
  name TEXT NOT NULL DEFAULT '',
  subject TEXT NOT NULL DEFAULT '',
  before TEXT,
  after TEXT,
  reason TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX changes_sandbox ON changes (sandbox);
"""

_RULE_ENDS = """
-- When a rule ends by itself: with the stop of its sandbox, or at a time, in microseconds since 1970, which is `ends_up` by
-- CLOCK_BOOTTIME of the boot `ends_boot`; `ends_left` was left of it when that was last noted.
ALTER TABLE rules ADD COLUMN ends_stop INTEGER NOT NULL DEFAULT 0;
ALTER TABLE rules ADD COLUMN ends_at INTEGER;
ALTER TABLE rules ADD COLUMN ends_up INTEGER;
ALTER TABLE rules ADD COLUMN ends_boot TEXT;
ALTER TABLE rules ADD COLUMN ends_left INTEGER;
"""

_SNAPSHOTS = """
-- What a sandbox's files were at one moment, and what else a copy of it gets; its rules are in rules, under the snapshot's id.
-- A name of NULL is one that only a fork uses; made is 0 while it is being made or removed.
CREATE TABLE snapshots (
  id TEXT PRIMARY KEY,
  name TEXT UNIQUE,
  sandbox TEXT NOT NULL,
  sandbox_name TEXT NOT NULL,
  engine TEXT NOT NULL,
  image TEXT NOT NULL,
  note TEXT NOT NULL DEFAULT '',
  made INTEGER NOT NULL DEFAULT 0,
  pause INTEGER,
  layer TEXT NOT NULL DEFAULT '',
  mode TEXT,
  public_key TEXT NOT NULL,
  cpus REAL,
  memory INTEGER,
  disk INTEGER,
  entrypoint INTEGER NOT NULL DEFAULT 0,
  created_at INTEGER NOT NULL
) STRICT;
-- The snapshot that a sandbox is being made from; empty once it is made, and where there is none.
ALTER TABLE sandboxes ADD COLUMN snapshot TEXT NOT NULL DEFAULT '';
"""

_ASK = """
-- Nothing changes but what `mode` may be: `ask` too. Code that knows `warn` and `deny` alone would read that as `warn`, and does
-- not open a database of this version.
"""

_ROLES = """
-- What a key may do; those from before could do all. And which key created a sandbox; empty for whoever may do all.
ALTER TABLE keys ADD COLUMN role TEXT NOT NULL DEFAULT 'admin';
ALTER TABLE sandboxes ADD COLUMN creator TEXT NOT NULL DEFAULT '';
ALTER TABLE snapshots ADD COLUMN creator TEXT NOT NULL DEFAULT '';
ALTER TABLE subjects ADD COLUMN creator TEXT NOT NULL DEFAULT '';
"""

_UNASKED = """
-- What no person is asked about, of all sandboxes (an empty id), of one, or of a snapshot: patterns in their one spelling.
CREATE TABLE unasked (
  sandbox TEXT NOT NULL,
  pattern TEXT NOT NULL,
  PRIMARY KEY (sandbox, pattern)
) STRICT, WITHOUT ROWID;
"""

_OWNERS = """
-- Whose change it is, the id of a key or empty for all else, and its number among those of that owner: each keeps its newest ones.
ALTER TABLE changes ADD COLUMN owner TEXT NOT NULL DEFAULT '';
ALTER TABLE changes ADD COLUMN number INTEGER NOT NULL DEFAULT 0;
UPDATE changes SET number = id;
CREATE INDEX changes_owner ON changes (owner, number);
"""

_CREATORS = """
-- What a key created is looked up with each of its requests for all of it.
CREATE INDEX sandboxes_creator ON sandboxes (creator);
CREATE INDEX snapshots_creator ON snapshots (creator);
CREATE INDEX subjects_creator ON subjects (creator);
"""

_MEMBER = """
-- The member of a fleet that a sandbox was to be made on; empty left that to its engine.
ALTER TABLE sandboxes ADD COLUMN member TEXT NOT NULL DEFAULT '';
"""

_MEMBERS = """
-- Members of the fleet. `token` is the hash of a token's secret; `revision` counts the policies that were pushed there, of one `epoch`.
CREATE TABLE members (
  name TEXT PRIMARY KEY,
  fingerprint TEXT NOT NULL DEFAULT '',
  epoch TEXT NOT NULL,
  revision INTEGER NOT NULL DEFAULT 0,
  token TEXT NOT NULL DEFAULT '',
  token_until INTEGER NOT NULL DEFAULT 0,
  added_at INTEGER NOT NULL,
  joined_at INTEGER
) STRICT;
-- Which cells are, or were, on which member: what another member's log says of a cell is not believed.
CREATE TABLE member_cells (
  cell TEXT NOT NULL,
  member TEXT NOT NULL,
  current INTEGER NOT NULL,
  PRIMARY KEY (cell, member)
) STRICT, WITHOUT ROWID;
"""

MIGRATIONS: tuple[str, ...] = (
    _FIRST,
    _CAUSES,
    _SERVED,
    _SUMMARIES,
    _NOTABLE,
    _FLEETS,
    _HOLDS,
    _ENTRYPOINT,
    _CONNECTIONS,
    _NOTE,
    _CHANGES,
    _RULE_ENDS,
    _SNAPSHOTS,
    _ASK,
    _ROLES,
    _UNASKED,
    _OWNERS,
    _CREATORS,
    _MEMBER,
    _MEMBERS,
)
"""Step N (counted from 1) leads from version N-1 to version N; `PRAGMA user_version` holds the version."""
