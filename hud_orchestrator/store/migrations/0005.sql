-- Most of a rollout is one document now, which is written in one go; the columns are seen through a view.
-- The step in hand, its calls and what else stood on its head are found without a look at all others.

CREATE TABLE kept_rollouts (
    group_number INTEGER NOT NULL REFERENCES groups (number),
    member       INTEGER NOT NULL,
    trace_id     TEXT NOT NULL,
    outcome      TEXT NOT NULL,
    reward       REAL,
    grade        TEXT,
    num_tokens   INTEGER NOT NULL,
    version_min  INTEGER,
    version_max  INTEGER,
    remote       INTEGER NOT NULL,
    document     TEXT NOT NULL,
    PRIMARY KEY (group_number, member)
) STRICT;

INSERT INTO kept_rollouts
    SELECT group_number, member, trace_id, outcome, reward, grade, num_tokens, version_min, version_max, remote,
           '{"samples":' || samples || ',"steps":' || steps || ',"phases":' || phases
           || ',"phase":' || json_quote(phase) || ',"seconds":' || json_quote(seconds)
           || ',"attempts":' || attempts
           || ',"answer":' || json_quote(answer) || ',"detail":' || json_quote(detail)
           || coalesce(',"began_at":' || strftime('%s', began_at) || substr(began_at, 20, 4), '') || '}'
    FROM rollouts;
DROP TABLE rollouts;

CREATE VIEW rollouts AS
SELECT group_number, member, trace_id, outcome, reward, grade, num_tokens, version_min, version_max, remote,
       json_extract(document, '$.answer') AS answer,
       json_extract(document, '$.detail') AS detail,
       json_extract(document, '$.seconds') AS seconds,
       coalesce(json_extract(document, '$.attempts'), 1) AS attempts,
       coalesce(json_extract(document, '$.phase'), 'teardown') AS phase,
       json_extract(document, '$.phases') AS phases,
       strftime('%Y-%m-%dT%H:%M:%f+00:00', json_extract(document, '$.began_at'), 'unixepoch') AS began_at,
       json_extract(document, '$.samples') AS samples,
       json_extract(document, '$.steps') AS steps
FROM kept_rollouts;

CREATE UNIQUE INDEX one_step_in_hand ON steps (state) WHERE state = 'planned';
CREATE INDEX steps_by_head ON steps (head_before);
CREATE INDEX calls_by_step ON calls (step);
DROP INDEX groups_by_step;
CREATE INDEX groups_by_step ON groups (step) WHERE step IS NOT NULL;
