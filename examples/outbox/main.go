// Outbox shows how a cache follows a database that many programs write to without knowing about the cache.
//
// A service shows users' privacy settings, from three nodes that embed weir. The settings are in PostgreSQL. The
// service's own settings page, a nightly job, an import and administrators with psql write them. Triggers put each
// change into an outbox (schema.sql), and the nodes follow it (outbox.go) with tier.Cache.Follow. Copies live for an
// hour, so only the outbox keeps them fresh. Meanwhile readers on all nodes check whether anything is older than what
// the outbox has acknowledged. The program exits with 0 only if nothing ever was.
//
// It starts its own temporary PostgreSQL server: only PostgreSQL's programs must be installed.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

//go:embed schema.sql
var schema string

// options are the flags.
type options struct {
	writes  int
	seed    uint64
	verbose bool
}

func main() {
	var o options
	flags := flag.NewFlagSet("outbox", flag.ContinueOnError)
	flags.IntVar(&o.writes, "writes", 2000, "rows that each of the four writers changes")
	flags.Uint64Var(&o.seed, "seed", 1, "seed of the writes and reads")
	flags.BoolVar(&o.verbose, "v", false, "show the nodes' logs")
	if err := flags.Parse(os.Args[1:]); errors.Is(err, flag.ErrHelp) {
		return
	} else if err != nil {
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o, os.Stdout)
	if err != nil && ctx.Err() != nil {
		err = errors.New("interrupted; the server and the nodes are stopped")
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "outbox:", err)
		os.Exit(1)
	}
}

// show is the running demonstration.
type show struct {
	options
	out    io.Writer
	db     *postgres
	conn   *pgx.Conn // for statements outside the writers and the cluster
	c      *cluster
	prover *prover
}

func run(ctx context.Context, o options, out io.Writer) (err error) {
	if o.writes < 1 {
		return errors.New("-writes must be above 0")
	}
	s := &show{options: o, out: out}
	if s.db, err = startPostgres(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.db.stop()) }()
	if s.conn, err = pgx.Connect(ctx, s.db.url()); err != nil {
		return err
	}
	defer s.conn.Close(context.Background())
	if err := prepare(ctx, s.conn); err != nil {
		return err
	}
	level := slog.LevelError
	if o.verbose {
		level = slog.LevelInfo
	}
	s.c, err = startCluster(ctx, s.db.url(), slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.c.stop()) }()
	s.prover = newProver(s.c, o.seed)
	return s.play(ctx)
}

// prepare creates the tables and their contents.
func prepare(ctx context.Context, conn *pgx.Conn) error {
	if _, err := conn.Exec(ctx, schema); err != nil {
		return fmt.Errorf("schema.sql: %w", err)
	}
	_, err := conn.Exec(ctx, fmt.Sprintf(`
		insert into org (id, policy) select i, 'policy 0' from generate_series(1, %d) i;
		insert into privacy (user_id, org, visibility) select i, 1 + i %% %d, 'everybody' from generate_series(1, %d) i`, orgs, orgs, users))
	return err
}

func (s *show) printf(format string, args ...any) { fmt.Fprintf(s.out, format+"\n", args...) }

// play runs the scenes, with readers on all nodes at all times except at the end.
func (s *show) play(ctx context.Context) error {
	s.printf("PostgreSQL on 127.0.0.1:%d, %d nodes, %d users in %d organisations; copies live for %v", s.db.port, nodes, users, orgs, contract.TTL)
	for i := range nodes - 1 {
		s.c.follow(i)
	}
	reader, err := pgx.Connect(ctx, s.db.url())
	if err != nil {
		return err
	}
	defer reader.Close(context.Background())
	reading, stop := context.WithCancel(ctx)
	read := make(chan error, 1)
	go func() { read <- s.prover.run(reading, reader, 2) }()
	err = errors.Join(s.fourWriters(ctx), ctx.Err())
	if err == nil {
		err = s.lateCommit(ctx)
	}
	if err == nil {
		err = s.keepUp(ctx)
	}
	stop()
	if err = errors.Join(err, <-read); err != nil {
		return err
	}
	if err := s.tooFarBehind(ctx); err != nil {
		return err
	}
	compared, err := s.prover.compare(ctx)
	if err != nil {
		return err
	}
	p := s.prover
	s.printf("\n%d reads, %d of them of what an acknowledged event had named, %d compared with the database at the end: %d stale",
		p.reads.Load(), p.after.Load(), compared, p.stale.Load())
	if p.after.Load() == 0 || p.stale.Load() > 0 {
		return fmt.Errorf("not fresh: %q", p.bad)
	}
	return nil
}

// fourWriters lets all writers write at once, while followers lose their connections and one of them stops and
// restarts.
func (s *show) fourWriters(ctx context.Context) error {
	s.printf("1. Four writers at once; nodes 1 and 2 follow the outbox")
	var wg sync.WaitGroup
	errs, counts := make([]error, len(writers)), make([]int, len(writers))
	began := time.Now()
	for i, w := range writers {
		wg.Go(func() {
			counts[i], errs[i] = w.run(ctx, s.db, s.writes, rand.New(rand.NewPCG(s.seed, uint64(100+i))))
		})
	}
	over := make(chan struct{})
	go func() { wg.Wait(); close(over) }()
	trouble, err := s.trouble(ctx, over)
	<-over
	took := time.Since(began)
	if err := errors.Join(append(errs, err)...); err != nil {
		return err
	}
	if err := s.keepUp(ctx); err != nil {
		return err
	}
	all := 0
	for i, w := range writers {
		s.printf("   %6d rows  %s", counts[i], w.name)
		all += counts[i]
	}
	first := s.c.services[0].cache.Stats().Follow
	if first.Flushes != 1 || first.Failures > 4*int64(trouble)+4 {
		return fmt.Errorf("node 1 followed badly: %+v", first)
	}
	s.printf("   %d rows in %v; %d events with the first filling, %d reads after an acknowledgement, %d stale", all, took.Round(time.Millisecond), s.c.position(), s.prover.after.Load(), s.prover.stale.Load())
	s.printf("   meanwhile %d times all connections of the followers were cut, and %d times one was stopped and started again: %d failures, and no flush but the one at the first start",
		trouble, trouble, first.Failures)
	return nil
}

// trouble cuts the followers' connections, and stops and starts one of them, until over is closed.
func (s *show) trouble(ctx context.Context, over <-chan struct{}) (n int, err error) {
	for {
		pause(ctx, 300*time.Millisecond)
		select {
		case <-over:
			return n, nil
		default:
		}
		if _, err := s.conn.Exec(ctx, "select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1", feedName); err != nil {
			return n, err
		}
		if err := s.c.unfollow(1); err != nil {
			return n, err
		}
		s.c.follow(1)
		n++
	}
}

// keepUp waits until everything that is committed has been acknowledged.
func (s *show) keepUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		var waiting, head uint64
		if err := s.conn.QueryRow(ctx, "select (select count(*) from outbox_inbox), head from outbox_head").Scan(&waiting, &head); err != nil {
			return fmt.Errorf("waiting for the feed's acknowledgement: %w", err)
		}
		if waiting == 0 && s.c.position() == head {
			return nil
		}
		pause(ctx, 5*time.Millisecond)
	}
}

// lateCommit holds a transaction open while others that began later commit and are acknowledged.
func (s *show) lateCommit(ctx context.Context) error {
	s.printf("2. A transaction that has taken its place in the outbox, and commits late")
	tx, err := s.conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(context.Background())
	if _, err := tx.Exec(ctx, "update privacy set visibility = 'late' where user_id = 1"); err != nil {
		return err
	}
	var before uint64
	var others int
	for ; others < 100; others++ {
		tag, err := s.c.pool.Exec(ctx, "update privacy set visibility = 'early' where user_id = $1", 2+others)
		if err != nil || tag.RowsAffected() != 1 {
			return errors.Join(err, errors.New("nothing was written"))
		}
	}
	for before = s.c.position(); ; before = s.c.position() {
		var waiting int
		if err := s.c.pool.QueryRow(ctx, "select count(*) from outbox_inbox").Scan(&waiting); err != nil {
			return err
		}
		var head uint64
		if err := s.c.pool.QueryRow(ctx, "select head from outbox_head").Scan(&head); err != nil {
			return err
		}
		if waiting == 0 && head == before {
			break
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		pause(ctx, 5*time.Millisecond)
	}
	for _, service := range s.c.services { // all services have the old value
		if _, err := service.cache.Get(ctx, userKey(1)); err != nil {
			return err
		}
	}
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	if err := s.keepUp(ctx); err != nil {
		return err
	}
	for i, service := range s.c.services {
		got, err := service.cache.Get(ctx, userKey(1))
		if err != nil {
			return err
		}
		if got.Visibility != "late" {
			s.prover.found(fmt.Sprintf("the late transaction was lost on node %d: %+v", i+1, got))
		}
	}
	s.printf("   %d later writes were acknowledged before it, up to event %d; it is event %d, and all nodes have it", others, before, s.c.position())
	return nil
}

// tooFarBehind deletes events that the followers have not read.
func (s *show) tooFarBehind(ctx context.Context) error {
	s.printf("3. Followers that are too far behind")
	for i := range nodes {
		if err := s.c.unfollow(i); err != nil {
			return err
		}
	}
	// Node 3 follows alone. The outbox is pruned before it reads what was written meanwhile.
	n, err := settingsPage(ctx, s.db, 500, rand.New(rand.NewPCG(s.seed, 200)))
	if err != nil {
		return err
	}
	move := newOutbox(s.db.url(), "nobody")
	b, err := move.Next(ctx, s.c.position())
	move.Close()
	if err != nil {
		return err
	}
	deleted, err := prune(ctx, s.conn, 100)
	if err != nil {
		return err
	}
	s.c.follow(2)
	if err := s.keepUp(ctx); err != nil {
		return err
	}
	st := s.c.services[2].cache.Stats().Follow
	if st.Flushes != 1 {
		return fmt.Errorf("node 3 should have flushed once: %+v", st)
	}
	s.printf("   %d rows written, %d events in the outbox, all but 100 deleted (%d): node 3 goes on with a flush of the namespace", n, len(b.Events), deleted)
	return nil
}
