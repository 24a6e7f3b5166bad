package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"

	"github.com/weircache/weir/tier"
)

// least is the minimum that a read must return, because the feed has acknowledged it.
type least struct {
	version uint64
	gone    bool // the row was deleted after the version
}

// A prover reads on all nodes and checks whether any value is older than what the feed acknowledged before the read
// began.
type prover struct {
	c    *cluster
	seed uint64

	mu     sync.Mutex // guards the rest
	keys   map[string]least
	orgs   map[string]uint64
	recent []int // the users of the latest acknowledged events
	seen   uint64
	bad    []string

	reads, after, stale atomic.Int64 // after: reads of keys that an acknowledged event named
}

func newProver(c *cluster, seed uint64) *prover {
	return &prover{c: c, seed: seed, keys: make(map[string]least), orgs: make(map[string]uint64)}
}

// run reads with workers on each node until ctx ends.
func (p *prover) run(ctx context.Context, conn *pgx.Conn, workers int) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	errs := make(chan error, nodes*workers+1)
	var wg sync.WaitGroup
	for i := range nodes {
		for j := range workers {
			dice := rand.New(rand.NewPCG(p.seed, uint64(i*workers+j)))
			wg.Go(func() {
				for ctx.Err() == nil {
					if err := p.read(ctx, i, p.pick(dice)); err != nil && ctx.Err() == nil {
						errs <- err
						stop()
						return
					}
				}
			})
		}
	}
	wg.Go(func() {
		for {
			select {
			case <-p.c.told:
			case <-ctx.Done():
				return
			}
			if err := p.learn(ctx, conn, p.c.position()); err != nil && ctx.Err() == nil {
				errs <- err
				stop()
				return
			}
		}
	})
	wg.Wait()
	close(errs)
	var err error
	for e := range errs {
		err = errors.Join(err, e)
	}
	return err
}

// learn records what is acknowledged up to a position.
func (p *prover) learn(ctx context.Context, conn *pgx.Conn, position uint64) error {
	rows, err := conn.Query(ctx, "select position, kind::text, name, version from outbox_feed where position > $1 and position <= $2 order by position",
		int64(p.seen), int64(position))
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.recent = p.recent[:0]
	var kind, name string
	var at, version uint64
	_, err = pgx.ForEachRow(rows, []any{&at, &kind, &name, &version}, func() error {
		if at != p.seen+1 {
			return fmt.Errorf("the feed has event %d after %d", at, p.seen)
		}
		p.seen = at
		if kind == "t" {
			p.orgs[name] = max(p.orgs[name], version)
			return nil
		}
		var user int
		if _, err := fmt.Sscanf(name, "user:%d", &user); err != nil {
			return err
		}
		p.recent = append(p.recent, user)
		if old := p.keys[name]; version == 0 {
			p.keys[name] = least{old.version, true}
		} else if version > old.version {
			p.keys[name] = least{version, false}
		}
		return nil
	})
	return err
}

// pick chooses a user: half of the time one of the most recently changed users.
func (p *prover) pick(dice *rand.Rand) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.recent); n > 0 && dice.IntN(2) == 0 {
		return p.recent[dice.IntN(n)]
	}
	return 1 + dice.IntN(users+guests)
}

// read reads a user's settings on node i and checks them.
func (p *prover) read(ctx context.Context, i, user int) error {
	key := userKey(user)
	p.mu.Lock()
	want, named := p.keys[key]
	wantOrg := make(map[string]uint64, len(p.orgs))
	for org, version := range p.orgs {
		wantOrg[org] = version
	}
	p.mu.Unlock()
	s, err := p.c.services[i].cache.Get(ctx, key)
	missing := errors.Is(err, tier.ErrNotFound)
	if err != nil && !missing {
		return err
	}
	p.reads.Add(1)
	if named {
		p.after.Add(1)
	}
	why := ""
	switch {
	case missing && named && !want.gone: // it may have been deleted since, which is not acknowledged yet
		var version uint64
		err := p.c.pool.QueryRow(ctx, "select version from privacy where user_id = $1", user).Scan(&version)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		if err == nil && version == want.version {
			why = "not found, although it is there"
		}
	case missing:
	case s.Version < want.version || want.gone && s.Version <= want.version:
		why = fmt.Sprintf("version %d, acknowledged was %d (deleted: %v)", s.Version, want.version, want.gone)
	case s.OrgVersion < wantOrg[orgTag(s.Org)]:
		why = fmt.Sprintf("version %d of %s, acknowledged was %d", s.OrgVersion, orgTag(s.Org), wantOrg[orgTag(s.Org)])
	}
	if why != "" {
		p.found(fmt.Sprintf("%s on node %d: %s", key, i+1, why))
	}
	return nil
}

// found records a stale read.
func (p *prover) found(what string) {
	p.stale.Add(1)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.bad) < 5 {
		p.bad = append(p.bad, what)
	}
}

// compare reads everything on every node while the writers are idle, and compares it with the database.
func (p *prover) compare(ctx context.Context) (n int, err error) {
	rows, err := p.c.pool.Query(ctx, "select p.user_id, p.org, p.visibility, p.version, o.policy, o.version from privacy p join org o on o.id = p.org")
	if err != nil {
		return 0, err
	}
	truth := make(map[int]Settings)
	var user int
	var s Settings
	if _, err := pgx.ForEachRow(rows, []any{&user, &s.Org, &s.Visibility, &s.Version, &s.Policy, &s.OrgVersion}, func() error {
		truth[user] = s
		return nil
	}); err != nil {
		return 0, err
	}
	for i, service := range p.c.services {
		for user := 1; user <= users+guests; user++ {
			got, err := service.cache.Get(ctx, userKey(user))
			want, there := truth[user]
			if err != nil && !errors.Is(err, tier.ErrNotFound) {
				return n, err
			}
			n++
			if (err == nil) != there || got != want {
				p.found(fmt.Sprintf("%s on node %d: %+v, the database has %+v", userKey(user), i+1, got, want))
			}
		}
	}
	return n, nil
}
