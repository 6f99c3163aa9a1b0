-- Reminders and what became of them. `n` orders everything: see number.rs. Texts are compared as bytes, so that the
-- database's locale is of no account.
CREATE TABLE reminders (
    n bigint PRIMARY KEY,
    source text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    user_name text COLLATE "C",
    outcome text COLLATE "C" NOT NULL, -- the latest one
    at bigint NOT NULL,                -- when that was, in ms since 1970
    body text NOT NULL,                -- the finished reminder, JSON, as it came
    trail text NOT NULL                -- its outcomes, a JSON array, oldest first
);
CREATE INDEX reminders_by_id ON reminders (id, n);
CREATE INDEX reminders_by_user ON reminders (user_name, n);
CREATE INDEX reminders_by_source ON reminders (source, n);
CREATE INDEX reminders_by_outcome ON reminders (outcome, n);

CREATE TABLE tags (tag text COLLATE "C" NOT NULL, n bigint NOT NULL, PRIMARY KEY (tag, n));

-- Which associates a trail names, so that they can be erased.
CREATE TABLE associates (user_name text COLLATE "C" NOT NULL, n bigint NOT NULL, PRIMARY KEY (user_name, n));

-- Who was erased, and when: what was published until then is not stored when it arrives later.
CREATE TABLE erasures (user_name text COLLATE "C" PRIMARY KEY, at bigint NOT NULL);

-- The search index, see postings.rs: what tells the blocks of each index apart, and its rows' numbers.
CREATE TABLE search_heads (
    id bigint PRIMARY KEY,
    first_n bigint NOT NULL,
    last_n bigint NOT NULL,
    firsts bytea NOT NULL,
    numbers bytea NOT NULL
);
CREATE INDEX search_heads_by_last_n ON search_heads (last_n);
-- The block of this place in an index has the id: the index's, times 65,536, and its place. Blocks are packed already, and read whole.
CREATE TABLE search_blocks (id bigint PRIMARY KEY, block bytea NOT NULL) WITH (toast_tuple_target = 8160);
ALTER TABLE search_blocks ALTER block SET STORAGE EXTERNAL;
-- Reminders that are in no index yet.
CREATE TABLE unindexed (n bigint PRIMARY KEY);
