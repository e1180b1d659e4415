-- Wrapped data keys that the appliance keeps for their owners: `header` is the whole
-- envelope header, `version` the one it stands under (a copy, to be counted by).
CREATE TABLE data_keys (
    id         BYTEA  NOT NULL PRIMARY KEY,
    tenant_id  BYTEA  NOT NULL REFERENCES tenants (id),
    key_id     BYTEA  NOT NULL REFERENCES keys (id),
    version    BIGINT NOT NULL,
    header     BYTEA  NOT NULL,
    created_ms BIGINT NOT NULL
);

CREATE INDEX data_keys_of ON data_keys (key_id, id);
CREATE INDEX data_keys_under ON data_keys (key_id, version);

-- Jobs that the appliance works on by itself are looked for every few seconds.
CREATE INDEX jobs_of_kind ON jobs (kind, created_ms) WHERE ended_ms = 0;
