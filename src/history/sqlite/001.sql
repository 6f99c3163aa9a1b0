-- Reminders and what became of them. `n` orders everything: see number.rs.
CREATE TABLE reminders (
    n INTEGER PRIMARY KEY,
    source TEXT NOT NULL,
    id TEXT NOT NULL,
    user_name TEXT,
    outcome TEXT NOT NULL, -- the latest one
    at INTEGER NOT NULL,   -- when that was, in ms since 1970
    body TEXT NOT NULL,    -- the finished reminder, JSON, as it came
    trail TEXT NOT NULL    -- its outcomes, a JSON array, oldest first
) STRICT;
-- Each of these ends with n, the row's id.
CREATE INDEX reminders_by_id ON reminders (id, source);
CREATE INDEX reminders_by_user ON reminders (user_name);
CREATE INDEX reminders_by_source ON reminders (source);
CREATE INDEX reminders_by_outcome ON reminders (outcome);

CREATE TABLE tags (tag TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (tag, n)) STRICT, WITHOUT ROWID;

-- Which associates a trail names, so that they can be erased.
CREATE TABLE associates (user_name TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (user_name, n)) STRICT, WITHOUT ROWID;

-- Who was erased, and when: what was published until then is not stored when it arrives later.
CREATE TABLE erasures (user_name TEXT PRIMARY KEY, at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
