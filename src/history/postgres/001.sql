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
CREATE INDEX reminders_by_id ON reminders (id, source, n);
CREATE INDEX reminders_by_user ON reminders (user_name, n);
CREATE INDEX reminders_by_source ON reminders (source, n);
CREATE INDEX reminders_by_outcome ON reminders (outcome, n);

CREATE TABLE tags (tag text COLLATE "C" NOT NULL, n bigint NOT NULL, PRIMARY KEY (tag, n));

-- Which associates a trail names, so that they can be erased.
CREATE TABLE associates (user_name text COLLATE "C" NOT NULL, n bigint NOT NULL, PRIMARY KEY (user_name, n));

-- Who was erased, and when: what was published until then is not stored when it arrives later.
CREATE TABLE erasures (user_name text COLLATE "C" PRIMARY KEY, at bigint NOT NULL);
