package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/weircache/weir/tier"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(patient{m}) }

// patient waits for memberlist's last probes, which outlast Close by up to two seconds, before goleak looks.
type patient struct{ m *testing.M }

func (p patient) Run() int {
	code := p.m.Run()
	for end := time.Now().Add(4 * time.Second); goleak.Find() != nil && time.Now().Before(end); {
	}
	return code
}

// installed reports whether PostgreSQL's programs are installed, and says so if not.
func installed(t *testing.T) bool {
	_, err := programs()
	if err != nil {
		t.Logf("left out: %v", err)
	}
	return err == nil
}

// TestShow runs the whole demonstration in a shortened form. It returns an error if anything was stale.
func TestShow(t *testing.T) {
	if !installed(t) {
		return
	}
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	if err := run(ctx, options{writes: 300, seed: 1}, &out); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	for _, want := range []string{": 0 stale", "and all nodes have it", "psql session"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in the output:\n%s", want, &out)
		}
	}
}

// database starts a server with filled tables and an empty outbox.
func database(t *testing.T) (*postgres, *pgx.Conn) {
	t.Helper()
	p, err := startPostgres(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.stop(); err != nil {
			t.Error(err)
		}
	})
	conn := connect(t, p)
	if err := prepare(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	return p, conn
}

func connect(t *testing.T, p *postgres) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), p.url())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// next takes the events after a position.
func next(t *testing.T, o *outbox, after uint64) (events []tier.Event, what []string) {
	t.Helper()
	b, err := o.Next(t.Context(), after)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range b.Events {
		if e.Position != after+uint64(i)+1 || e.Time.IsZero() {
			t.Errorf("event %d after %d: %+v", i, after, e)
		}
		s := strings.Join(append(slices.Clone(e.Keys), e.Tags...), " ")
		if e.All {
			s += "all"
		}
		what = append(what, fmt.Sprint(s, " ", e.Version > 0))
	}
	return b.Events, what
}

func TestFeed(t *testing.T) {
	if !installed(t) {
		return
	}
	p, conn := database(t)
	ctx := t.Context()
	feed, other := newOutbox(p.url(), "one"), newOutbox(p.url(), "one")
	defer feed.Close()
	defer other.Close()
	bounds := func(o *outbox) tier.FeedBounds {
		t.Helper()
		b, err := o.Bounds(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	do := func(c *pgx.Conn, sql string) {
		t.Helper()
		if _, err := c.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	if b := bounds(feed); b.End != 0 || b.Acked != 0 || b.Epoch == 0 || b.Epoch != bounds(feed).Epoch {
		t.Errorf("%+v", b)
	}
	events, _ := next(t, feed, 0)
	last := events[len(events)-1].Position
	if last != users+orgs {
		t.Errorf("%d events", last)
	}

	// Each way to change a row, and the statements that change no rows.
	for _, x := range []struct {
		sql  string
		want []string
	}{
		{"update privacy set visibility = 'x' where user_id = 7", []string{"user:7 true"}},
		{"insert into privacy values (9000, 1, 'x')", []string{"user:9000 true"}},
		{"update privacy set user_id = 9001 where user_id = 9000", []string{"user:9001 true", "user:9000 false"}},
		{"insert into privacy values (9001, 1, 'y') on conflict (user_id) do update set visibility = excluded.visibility", []string{"user:9001 true"}},
		{"delete from privacy where user_id = 9001", []string{"user:9001 false"}},
		{"update org set policy = 'x' where id = 3", []string{"org:3 false"}},
		{"begin; update privacy set visibility = 'y' where user_id = 7; rollback; update privacy set visibility = 'y' where user_id = 8", []string{"user:8 true"}},
		{"begin; set local session_replication_role = replica; update privacy set visibility = 'y' where user_id = 7; insert into outbox_inbox (kind, name, version) values ('a', '', 0); commit", []string{"all false"}},
		{"truncate privacy", []string{"all false"}},
	} {
		do(conn, x.sql)
		if _, what := next(t, feed, last); !slices.Equal(what, x.want) {
			t.Errorf("%s: %q, want %q", x.sql, what, x.want)
		}
		last += uint64(len(x.want))
	}

	// A late commit arrives late, after what others have numbered. It is not lost, and nothing waits for it.
	late := connect(t, p)
	do(late, "begin; insert into privacy values (1, 1, 'late')")
	do(conn, "insert into privacy values (2, 1, 'early')")
	if _, what := next(t, other, last); !slices.Equal(what, []string{"user:2 true"}) {
		t.Errorf("%q", what)
	}
	do(late, "commit")
	if _, what := next(t, feed, last+1); !slices.Equal(what, []string{"user:1 true"}) {
		t.Errorf("the late transaction: %q", what)
	}
	if _, what := next(t, feed, last); !slices.Equal(what, []string{"user:2 true", "user:1 true"}) {
		t.Errorf("again, from before: %q", what)
	}
	last += 2

	// Two followers that number events at the same time take turns.
	tx, err := late.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	do(conn, "update privacy set visibility = 'a' where user_id = 1")
	if taken, err := take(ctx, tx, last); err != nil || len(taken) != 1 {
		t.Fatalf("%+v, %v", taken, err)
	}
	do(conn, "update privacy set visibility = 'a' where user_id = 2")
	both := make(chan error, 1)
	go func() {
		b, err := other.Next(ctx, last)
		if len(b.Events) != 2 {
			err = fmt.Errorf("%d events, %w", len(b.Events), err)
		}
		both <- err
	}()
	for waits := 0; waits == 0; {
		err := conn.QueryRow(ctx, "select count(*) from pg_stat_activity where application_name = $1 and wait_event_type = 'Lock'", feedName).Scan(&waits)
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-both; err != nil {
		t.Error(err)
	}
	last += 2

	// A notification wakes a waiting follower.
	var asked time.Time
	if err := conn.QueryRow(ctx, "select clock_timestamp()").Scan(&asked); err != nil {
		t.Fatal(err)
	}
	got := make(chan []tier.Event, 1)
	pid := feed.reader.conn.PgConn().PID()
	go func() {
		b, _ := feed.Next(ctx, last)
		got <- b.Events
	}()
	for waits := false; !waits; { // after the transaction that found no events
		err := conn.QueryRow(ctx, "select state = 'idle' and query = 'commit' and xact_start is null and state_change > $2 from pg_stat_activity where pid = $1", pid, asked).Scan(&waits)
		if err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	do(conn, "update privacy set visibility = 'z' where user_id = 2")
	if e := <-got; len(e) != 1 || time.Since(began) > poll-time.Second {
		t.Errorf("%+v after %v", e, time.Since(began))
	}
	last++

	// The greatest acknowledgement is kept, by group and epoch.
	epoch := bounds(feed).Epoch
	for _, position := range []uint64{last - 1, last, last - 2} {
		if err := other.Ack(ctx, tier.FeedPosition{Epoch: epoch, Position: position}); err != nil {
			t.Fatal(err)
		}
	}
	if err := other.Ack(ctx, tier.FeedPosition{Epoch: epoch + 1, Position: last + 100}); err != nil {
		t.Fatal(err)
	}
	if b := bounds(feed); b.Acked != last || b.End != last || !b.Consecutive {
		t.Errorf("%+v, want %d", b, last)
	}
	do(conn, "update outbox_ack set epoch = epoch + 1") // like another history
	if b := bounds(feed); b.Acked != 0 {
		t.Errorf("%+v", b)
	}

	// A deleted position is reported as a gap, and so is one that never existed.
	if deleted, err := prune(ctx, conn, 2); err != nil || deleted != int64(last)-2 {
		t.Errorf("%d deleted, %v", deleted, err)
	}
	for after, want := range map[uint64]error{0: tier.ErrFeedGap, last - 3: tier.ErrFeedGap, last - 2: nil, last + 1: tier.ErrFeedGap} {
		if _, err := feed.Next(ctx, after); !errors.Is(err, want) {
			t.Errorf("after %d of %d: %v, want %v", after, last, err, want)
		}
	}
	// A follower that loses its connection gets an error, and reconnects.
	do(conn, "select pg_terminate_backend(pid) from pg_stat_activity where application_name = '"+feedName+"'")
	if _, err := feed.Next(ctx, last-1); err == nil {
		t.Error("no error although the connection was cut")
	}
	if events, _ := next(t, feed, last-1); len(events) != 1 {
		t.Errorf("%d events", len(events))
	}
	// A waiting follower gets an error as well when its deadline passes.
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := feed.Next(short, last); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}
