-- The service's tables: who may see a user's profile, and each organisation's policy.
create table org (
  id      int primary key,
  policy  text not null,
  version bigint not null default 0
);
create table privacy (
  user_id    int primary key,
  org        int not null references org,
  visibility text not null,
  version    bigint not null default 0
);

-- Each write gives its row a version, greater than all that the row has had.
create sequence write_number;
create function number_write() returns trigger language plpgsql as $$
begin
  new.version := nextval('write_number');
  return new;
end $$;
create trigger number_write before insert or update on org for each row execute function number_write();
create trigger number_write before insert or update on privacy for each row execute function number_write();

-- The outbox. Triggers put into outbox_inbox what has changed, in the transaction that changes it: it is there if and only if
-- that commits. But the inbox cannot be read in the order of its ids: they are given before the commit. A transaction that
-- takes id 7 and commits late would come after a reader has seen id 8 and remembered "up to 8": a reader that asks for
-- "id > last" loses it for ever.
--
-- So whoever reads moves the rows that are committed, and only those can it see, out of the inbox into
-- outbox_feed, and numbers them as it does so, with the row of outbox_head locked. What commits later is moved later, and gets a
-- greater position. So positions are in the order in which the rows could be seen, without holes; and no reader waits for
-- a transaction that is still open, as one would that reads up to pg_snapshot_xmin(). Writers lock nothing
-- that they share.
create table outbox_inbox (
  id      bigint generated always as identity primary key,
  kind    "char" not null, -- k: a key, t: a tag, a: everything
  name    text not null,
  version bigint not null, -- of the row after the write; 0: it is deleted, or there is none
  at      timestamptz not null default clock_timestamp()
);
create table outbox_feed (
  position bigint primary key,
  kind     "char" not null,
  name     text not null,
  version  bigint not null,
  at       timestamptz not null
);
create table outbox_head (
  one   boolean primary key default true check (one),
  head  bigint not null, -- the greatest position given
  floor bigint not null  -- up to this the feed's rows are deleted
);
insert into outbox_head (head, floor) values (0, 0);
-- How far each group of caches has applied the feed.
create table outbox_ack (
  name     text primary key,
  epoch    bigint not null,
  position bigint not null
);

-- note_write(kind, prefix, column) notes a row by the prefix and the value of the column. It runs with its owner's
-- rights, so that writers need none on the outbox. What does not fire triggers is not noted, such as pg_restore
-- --disable-triggers: insert a row of kind 'a' then.
--
-- The notification is only to wake readers, which look by themselves too, now and then. PostgreSQL lets one
-- transaction with a notification commit at a time: leave it out where very many write.
create function note_write() returns trigger language plpgsql security definer set search_path = public, pg_temp as $$
declare
  before text;
  after  text;
begin
  if tg_op = 'TRUNCATE' then
    insert into outbox_inbox (kind, name, version) values ('a', '', 0);
  else
    if tg_op <> 'INSERT' then before := to_jsonb(old) ->> tg_argv[2]; end if;
    if tg_op <> 'DELETE' then
      after := to_jsonb(new) ->> tg_argv[2];
      insert into outbox_inbox (kind, name, version) values (tg_argv[0]::"char", tg_argv[1] || after, new.version);
    end if;
    if before is distinct from after and before is not null then -- deleted, or goes by another name now
      insert into outbox_inbox (kind, name, version) values (tg_argv[0]::"char", tg_argv[1] || before, 0);
    end if;
  end if;
  perform pg_notify('outbox', '');
  return null;
end $$;
create trigger note_write after insert or update or delete on privacy
  for each row execute function note_write('k', 'user:', 'user_id');
create trigger note_write after insert or update or delete on org
  for each row execute function note_write('t', 'org:', 'id');
create trigger note_truncate after truncate on privacy for each statement execute function note_write();
create trigger note_truncate after truncate on org for each statement execute function note_write();
