-- Rows of rollouts are long, so they are appended, and no longer moved about in the index of their keys.

CREATE TABLE rollouts_4 (
    group_number INTEGER NOT NULL REFERENCES groups (number),
    member       INTEGER NOT NULL,
    trace_id     TEXT NOT NULL,
    outcome      TEXT NOT NULL,
    reward       REAL,
    grade        TEXT,
    answer       TEXT,
    samples      TEXT NOT NULL,
    num_tokens   INTEGER NOT NULL,
    version_min  INTEGER,
    version_max  INTEGER,
    attempts     INTEGER NOT NULL,
    seconds      REAL NOT NULL,
    detail       TEXT,
    phase        TEXT NOT NULL DEFAULT 'teardown',
    phases       TEXT NOT NULL DEFAULT '{}',
    remote       INTEGER NOT NULL DEFAULT 0,
    began_at     TEXT,
    steps        TEXT NOT NULL DEFAULT '[]',
    PRIMARY KEY (group_number, member)
) STRICT;
INSERT INTO rollouts_4 (group_number, member, trace_id, outcome, reward, grade, answer, samples, num_tokens,
                        version_min, version_max, attempts, seconds, detail, phase, phases, remote, began_at,
                        steps)
    SELECT group_number, member, trace_id, outcome, reward, grade, answer, samples, num_tokens,
           version_min, version_max, attempts, seconds, detail, phase, phases, remote, began_at, steps
    FROM rollouts;
DROP TABLE rollouts;
ALTER TABLE rollouts_4 RENAME TO rollouts;
