-- ACME: who may come in, who came, and what they ask for.

-- `wrapped`: the MAC key under the appliance's own key in the HSM.
CREATE TABLE acme_keys (
    kid        TEXT    NOT NULL PRIMARY KEY,
    tenant_id  BLOB    NOT NULL REFERENCES tenants (id),
    identity   TEXT    NOT NULL,
    profiles   TEXT    NOT NULL,
    wrapped    BLOB    NOT NULL,
    created_by TEXT    NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE acme_accounts (
    id         TEXT    NOT NULL PRIMARY KEY,
    tenant_id  BLOB    NOT NULL REFERENCES tenants (id),
    thumbprint TEXT    NOT NULL,
    jwk        TEXT    NOT NULL,
    status     TEXT    NOT NULL,
    contacts   TEXT    NOT NULL,
    kid        TEXT    NOT NULL REFERENCES acme_keys (kid),
    created_ms INTEGER NOT NULL,
    UNIQUE (tenant_id, thumbprint)
) STRICT;

-- `issuer_id` and `serial` are empty until there is a certificate, `failure` unless it was
-- refused for good; `replaces` is empty or issuer and serial of what the order replaces.
CREATE TABLE acme_orders (
    id             TEXT    NOT NULL PRIMARY KEY,
    account_id     TEXT    NOT NULL REFERENCES acme_accounts (id),
    profile        TEXT    NOT NULL,
    names          TEXT    NOT NULL,
    authorizations TEXT    NOT NULL,
    issuer_id      BLOB    NOT NULL,
    serial         BLOB    NOT NULL,
    failure        TEXT    NOT NULL,
    replaces       BLOB    NOT NULL,
    expires_ms     INTEGER NOT NULL,
    created_ms     INTEGER NOT NULL
) STRICT;

CREATE INDEX acme_orders_account ON acme_orders (account_id, created_ms);
CREATE INDEX acme_orders_certificate ON acme_orders (issuer_id, serial);
CREATE INDEX acme_orders_replaces ON acme_orders (replaces) WHERE replaces <> x'';

-- `challenges`: JSON, one object for each way to show control.
CREATE TABLE acme_authorizations (
    id         TEXT    NOT NULL PRIMARY KEY,
    account_id TEXT    NOT NULL REFERENCES acme_accounts (id),
    name       TEXT    NOT NULL,
    profile    TEXT    NOT NULL,
    status     TEXT    NOT NULL,
    challenges TEXT    NOT NULL,
    expires_ms INTEGER NOT NULL,
    revision   INTEGER NOT NULL
) STRICT;

CREATE INDEX acme_authorizations_name ON acme_authorizations (account_id, name);
