-- as version 2 of the format was made; it never changes again
CREATE TABLE bank (id VARCHAR(128) NOT NULL, key BYTEA NOT NULL, owner VARCHAR(64), token INTEGER NOT NULL, lease_until
    FLOAT(53) NOT NULL, reading JSON, due_at FLOAT(53), wanted_since FLOAT(53), not_before FLOAT(53), priority INTEGER, again
    JSON, wakes INTEGER DEFAULT '0' NOT NULL, taken INTEGER DEFAULT '0' NOT NULL, seen INTEGER DEFAULT '0' NOT NULL, attempts
    INTEGER DEFAULT '0' NOT NULL, last_error TEXT, paused TEXT, PRIMARY KEY (id));
CREATE INDEX bank_by_due ON bank (due_at);
CREATE TABLE breaker (endpoint TEXT NOT NULL, body JSON NOT NULL, PRIMARY KEY (endpoint));
CREATE TABLE cites (seq INTEGER NOT NULL, memory VARCHAR(128) NOT NULL, role VARCHAR(8) NOT NULL, PRIMARY KEY (seq, memory,
    role));
CREATE INDEX cites_by_memory ON cites (memory);
CREATE TABLE evidence (observation VARCHAR(128) NOT NULL, memory VARCHAR(128) NOT NULL, position INTEGER NOT NULL, source TEXT
    NOT NULL, occurred_at TIMESTAMP WITH TIME ZONE NOT NULL, since_version INTEGER NOT NULL, trust INTEGER NOT NULL, supports
    BOOLEAN NOT NULL, PRIMARY KEY (observation, memory));
CREATE INDEX evidence_by_memory ON evidence (memory);
CREATE TABLE handed (bank VARCHAR(128) NOT NULL, digest VARCHAR(64) NOT NULL, seq BIGINT NOT NULL, at TIMESTAMP WITH TIME ZONE
    NOT NULL, PRIMARY KEY (bank, digest));
CREATE INDEX handed_by_bank ON handed (bank, seq);
CREATE TABLE intent (seq SERIAL NOT NULL, id VARCHAR(128) NOT NULL, bank VARCHAR(128) NOT NULL, token INTEGER NOT NULL, kind
    VARCHAR(16) NOT NULL, state VARCHAR(16) NOT NULL, body TEXT, by TEXT NOT NULL, prompt_digest VARCHAR(64) NOT NULL, calls
    INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL, reply_tokens INTEGER NOT NULL, created_at TIMESTAMP WITH TIME ZONE NOT
    NULL, PRIMARY KEY (seq), UNIQUE (id));
CREATE INDEX intent_by_bank ON intent (bank, state);
CREATE UNIQUE INDEX one_plan_a_bank ON intent (bank) WHERE state = 'planned';
CREATE TABLE journal (seq SERIAL NOT NULL, bank VARCHAR(128) NOT NULL, intent VARCHAR(128) NOT NULL, at TIMESTAMP WITH TIME ZONE
    NOT NULL, action VARCHAR(32) NOT NULL, observation VARCHAR(128), version INTEGER, before TEXT, after TEXT, reason TEXT, by
    TEXT NOT NULL, digest VARCHAR(64) NOT NULL, PRIMARY KEY (seq));
CREATE INDEX journal_by_bank ON journal (bank, seq);
CREATE INDEX journal_by_observation ON journal (observation, version);
CREATE TABLE meta (key VARCHAR(32) NOT NULL, value TEXT NOT NULL, PRIMARY KEY (key));
CREATE TABLE observation (id VARCHAR(128) NOT NULL, bank VARCHAR(128) NOT NULL, tags TEXT NOT NULL, rev INTEGER NOT NULL,
    version INTEGER NOT NULL, state VARCHAR(16) NOT NULL, confidence FLOAT NOT NULL, contests VARCHAR(128), created_at TIMESTAMP
    WITH TIME ZONE NOT NULL, updated_at TIMESTAMP WITH TIME ZONE NOT NULL, PRIMARY KEY (id));
CREATE INDEX observation_by_bank ON observation (bank, state);
CREATE TABLE parked (memory VARCHAR(128) NOT NULL, bank VARCHAR(128) NOT NULL, state VARCHAR(16) NOT NULL, attempts INTEGER NOT
    NULL, reason TEXT NOT NULL, reply TEXT, first_at TIMESTAMP WITH TIME ZONE NOT NULL, last_at TIMESTAMP WITH TIME ZONE NOT
    NULL, PRIMARY KEY (memory));
CREATE INDEX parked_by_bank ON parked (bank);
CREATE TABLE receipt (id VARCHAR(128) NOT NULL, bank VARCHAR(128) NOT NULL, state VARCHAR(16) NOT NULL, body TEXT NOT NULL, at
    TIMESTAMP WITH TIME ZONE NOT NULL, PRIMARY KEY (id));
CREATE INDEX receipt_by_bank ON receipt (bank, state);
CREATE TABLE spend (bank VARCHAR(128) NOT NULL, day VARCHAR(10) NOT NULL, calls BIGINT NOT NULL, prompt_tokens BIGINT NOT NULL,
    reply_tokens BIGINT NOT NULL, PRIMARY KEY (bank, day));
CREATE TABLE tombstone (memory VARCHAR(128) NOT NULL, bank VARCHAR(128) NOT NULL, receipt VARCHAR(128) NOT NULL, open BOOLEAN
    NOT NULL, PRIMARY KEY (memory));
CREATE INDEX tombstone_by_bank ON tombstone (bank, open);
CREATE INDEX tombstone_by_receipt ON tombstone (receipt);
CREATE TABLE use (memory VARCHAR(128) NOT NULL, rev INTEGER NOT NULL, intent VARCHAR(128) NOT NULL, PRIMARY KEY (memory, rev));
CREATE TABLE version (observation VARCHAR(128) NOT NULL, number INTEGER NOT NULL, text TEXT, digest VARCHAR(64) NOT NULL, state
    VARCHAR(16) NOT NULL, confidence FLOAT NOT NULL, change VARCHAR(32) NOT NULL, reason TEXT, by TEXT NOT NULL, intent
    VARCHAR(128) NOT NULL, vector BYTEA, at TIMESTAMP WITH TIME ZONE NOT NULL, PRIMARY KEY (observation, number));
CREATE TABLE lineage (observation VARCHAR(128) NOT NULL, number INTEGER NOT NULL, memory VARCHAR(128) NOT NULL, role VARCHAR(8)
    NOT NULL, PRIMARY KEY (observation, number, memory, role), FOREIGN KEY(observation, number) REFERENCES version (observation,
    number));
CREATE INDEX lineage_by_memory ON lineage (memory);
INSERT INTO meta VALUES ('schema', '2');
