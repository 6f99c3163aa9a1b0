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
CREATE INDEX reminders_by_id ON reminders (id);
CREATE INDEX reminders_by_user ON reminders (user_name);
CREATE INDEX reminders_by_source ON reminders (source);
CREATE INDEX reminders_by_outcome ON reminders (outcome);

CREATE TABLE tags (tag TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (tag, n)) STRICT, WITHOUT ROWID;

-- Which associates a trail names, so that they can be erased.
CREATE TABLE associates (user_name TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (user_name, n)) STRICT, WITHOUT ROWID;

-- Who was erased, and when: what was published until then is not stored when it arrives later.
CREATE TABLE erasures (user_name TEXT PRIMARY KEY, at INTEGER NOT NULL) STRICT, WITHOUT ROWID;

-- The search index, see postings.rs: what tells the blocks of each index apart, and its rows' numbers. These are last, so that
-- they are read only when they are needed.
CREATE TABLE search_heads (
    id INTEGER PRIMARY KEY,
    first_n INTEGER NOT NULL,
    last_n INTEGER NOT NULL,
    firsts BLOB NOT NULL,
    numbers BLOB NOT NULL
) STRICT;
CREATE INDEX search_heads_by_last_n ON search_heads (last_n);
-- The block of this place in an index has the id: the index's, times 65,536, and its place.
CREATE TABLE search_blocks (id INTEGER PRIMARY KEY, block BLOB NOT NULL) STRICT;
-- Reminders that are in no index yet.
CREATE TABLE unindexed (n INTEGER PRIMARY KEY) STRICT;
