package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weircache/weir/tier"
)

const (
	batch = 1000            // maximum number of events per call
	poll  = 5 * time.Second // how often Next checks the inbox without a notification
	// feedName is the name of the feed's connections in pg_stat_activity.
	feedName = "weir outbox"
)

// outbox is a tier.Feed from PostgreSQL; schema.sql explains how it works. An outbox belongs to one Follow. Close it
// afterwards.
type outbox struct {
	url   string
	group string // whose acknowledgements it keeps
	// told, if not nil, is called with each position that is acknowledged and stored.
	told func(position uint64)

	reader, acker link
	dials         atomic.Int64
}

// link is a connection that is opened when needed and dropped at the first error.
type link struct {
	conn  *pgx.Conn
	epoch uint64
}

func newOutbox(url, group string) *outbox { return &outbox{url: url, group: group} }

// do calls f with a link's connection.
func (o *outbox) do(ctx context.Context, l *link, listen bool, f func(*pgx.Conn) error) error {
	if l.conn == nil {
		if err := o.dial(ctx, l, listen); err != nil {
			return err
		}
	}
	err := f(l.conn)
	if err != nil && !errors.Is(err, tier.ErrFeedGap) {
		l.close()
	}
	return err
}

// dial connects and determines the epoch: which database this is, and which of its histories. A standby that takes over
// begins a new history and may lack the last events of the old one.
func (o *outbox) dial(ctx context.Context, l *link, listen bool) error {
	cfg, err := pgx.ParseConfig(o.url)
	if err != nil {
		return err
	}
	cfg.RuntimeParams["application_name"] = feedName
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return err
	}
	o.dials.Add(1)
	l.conn = conn
	var system, history int64
	err = conn.QueryRow(ctx, `select system_identifier, ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint
		from pg_control_system()`).Scan(&system, &history)
	if err == nil && listen {
		_, err = conn.Exec(ctx, "listen outbox")
	}
	if err != nil {
		l.close()
		return err
	}
	l.epoch = uint64(system) + uint64(history)*0x9E3779B97F4A7C15
	return nil
}

func (l *link) close() {
	if l.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = l.conn.Close(ctx)
	l.conn = nil
}

// Close closes the connections.
func (o *outbox) Close() {
	o.reader.close()
	o.acker.close()
}

// Bounds implements tier.Feed.
func (o *outbox) Bounds(ctx context.Context) (b tier.FeedBounds, err error) {
	err = o.do(ctx, &o.reader, true, func(conn *pgx.Conn) error {
		b = tier.FeedBounds{Epoch: o.reader.epoch, Consecutive: true}
		return conn.QueryRow(ctx, `select head, coalesce((select position from outbox_ack where name = $1 and epoch = $2), 0)
			from outbox_head`, o.group, int64(b.Epoch)).Scan(&b.End, &b.Acked)
	})
	return b, err
}

// Next implements tier.Feed. Without new events it waits for a notification and checks again.
func (o *outbox) Next(ctx context.Context, after uint64) (b tier.FeedBatch, err error) {
	err = o.do(ctx, &o.reader, true, func(conn *pgx.Conn) error {
		wait, cancel := context.WithTimeout(ctx, poll)
		defer cancel()
		for {
			b = tier.FeedBatch{Epoch: o.reader.epoch}
			err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) (err error) {
				b.Events, err = take(ctx, tx, after)
				return err
			})
			if err != nil || len(b.Events) > 0 || wait.Err() != nil {
				return err
			}
			if _, err = conn.WaitForNotification(wait); err != nil && wait.Err() == nil || ctx.Err() != nil {
				return errors.Join(err, ctx.Err())
			}
		}
	})
	return b, err
}

// take moves committed events from the inbox into the feed, and returns the events after a position.
func take(ctx context.Context, tx pgx.Tx, after uint64) ([]tier.Event, error) {
	// Events that were handed out must keep their numbers after a crash.
	if _, err := tx.Exec(ctx, "set local synchronous_commit = on"); err != nil {
		return nil, err
	}
	// Each later statement sees what was committed before it began, including the work of the lock's previous holder.
	var head, floor uint64
	if err := tx.QueryRow(ctx, "select head, floor from outbox_head for update").Scan(&head, &floor); err != nil {
		return nil, err
	}
	moved, err := tx.Exec(ctx, `
		with taken as (
			delete from outbox_inbox where id in (select id from outbox_inbox order by id limit $2) returning *
		)
		insert into outbox_feed (position, kind, name, version, at)
		select $1 + row_number() over (order by id), kind, name, version, at from taken`, int64(head), batch)
	if err != nil {
		return nil, err
	}
	if n := uint64(moved.RowsAffected()); n > 0 {
		head += n
		if _, err := tx.Exec(ctx, "update outbox_head set head = $1", int64(head)); err != nil {
			return nil, err
		}
	}
	if after < floor || after > head {
		return nil, fmt.Errorf("outbox: asked for what comes after %d, and has %d to %d: %w", after, floor+1, head, tier.ErrFeedGap)
	}
	rows, err := tx.Query(ctx, `select position, kind::text, name, version, at from outbox_feed
		where position > $1 order by position limit $2`, int64(after), batch)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (e tier.Event, err error) {
		var kind, name string
		if err := row.Scan(&e.Position, &kind, &name, &e.Version, &e.Time); err != nil {
			return e, err
		}
		switch kind {
		case "k":
			e.Keys = []string{name}
		case "t":
			e.Tags, e.Version = []string{name}, 0
		default: // including what a later version of this program may write
			e.All = true
		}
		return e, nil
	})
}

// Ack implements tier.Feed.
func (o *outbox) Ack(ctx context.Context, upTo tier.FeedPosition) error {
	return o.do(ctx, &o.acker, false, func(conn *pgx.Conn) error {
		if upTo.Epoch != o.acker.epoch {
			return nil // from a history that has ended
		}
		_, err := conn.Exec(ctx, `insert into outbox_ack as a (name, epoch, position) values ($1, $2, $3)
			on conflict (name) do update set epoch = excluded.epoch, position =
				case when a.epoch = excluded.epoch then greatest(a.position, excluded.position) else excluded.position end`,
			o.group, int64(upTo.Epoch), int64(upTo.Position))
		if err == nil && o.told != nil {
			o.told(upTo.Position)
		}
		return err
	})
}

// prune deletes all of the feed's rows except the newest. A follower that has not read the deleted rows gets
// tier.ErrFeedGap.
func prune(ctx context.Context, conn *pgx.Conn, keep int64) (deleted int64, err error) {
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		var floor int64
		if err := tx.QueryRow(ctx, "select greatest(floor, head - $1) from outbox_head for update", keep).Scan(&floor); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, "delete from outbox_feed where position <= $1", floor)
		if err != nil {
			return err
		}
		deleted = tag.RowsAffected()
		_, err = tx.Exec(ctx, "update outbox_head set floor = $1", floor)
		return err
	})
	return deleted, err
}
