package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/weircache/weir/peer"
	"github.com/weircache/weir/tier"
)

const nodes = 3

// contract lets copies live so long that only an invalidation can refresh them here.
var contract = tier.Freshness{TTL: time.Hour, NearTTL: time.Hour, NegativeTTL: time.Hour, RefreshAhead: -1}

// Settings is what the service shows about a user.
type Settings struct {
	Org        int    `msgpack:"org"`
	Visibility string `msgpack:"visibility"`
	Policy     string `msgpack:"policy"` // the organisation's
	// The versions of the two rows that the settings come from.
	Version    uint64 `msgpack:"version"`
	OrgVersion uint64 `msgpack:"org_version"`
}

func userKey(user int) string { return fmt.Sprintf("user:%d", user) }
func orgTag(org int) string   { return fmt.Sprintf("org:%d", org) }

// service is one node: a member of the cluster with its cache, and perhaps a follower of the outbox.
type service struct {
	node  *peer.Node
	cache *tier.Cache[Settings]

	feed     *outbox // nil: it does not follow
	stop     context.CancelFunc
	followed chan error
}

// load reads one user's settings.
func load(pool *pgxpool.Pool) tier.Loader[Settings] {
	return func(ctx context.Context, fill *tier.Fill[Settings]) (s Settings, err error) {
		var user int
		if _, err := fmt.Sscanf(fill.Key, "user:%d", &user); err != nil {
			return s, tier.ErrNotFound
		}
		err = pool.QueryRow(ctx, `select p.org, p.visibility, p.version, o.policy, o.version
			from privacy p join org o on o.id = p.org where p.user_id = $1`, user).
			Scan(&s.Org, &s.Visibility, &s.Version, &s.Policy, &s.OrgVersion)
		if errors.Is(err, pgx.ErrNoRows) {
			return s, tier.ErrNotFound
		}
		fill.Tag(orgTag(s.Org))
		fill.SetVersion(s.Version)
		return s, err
	}
}

// cluster is the nodes of the service, here all in one process.
type cluster struct {
	url      string
	services []*service
	pool     *pgxpool.Pool
	logger   *slog.Logger
	mu       sync.Mutex // guards acked
	acked    uint64     // the greatest position that any node has acknowledged
	told     chan struct{}
}

func startCluster(ctx context.Context, url string, logger *slog.Logger) (c *cluster, err error) {
	c = &cluster{url: url, logger: logger, told: make(chan struct{}, 1)}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.stop())
		}
	}()
	if c.pool, err = pgxpool.New(ctx, url); err != nil {
		return c, err
	}
	var secret peer.Secret
	_, _ = rand.Read(secret[:]) // never fails
	var join []string
	for i := range nodes {
		s := &service{}
		s.node, err = peer.Start(ctx, peer.Config{
			Name: fmt.Sprintf("settings-%d", i+1), Bind: "127.0.0.1:0", Join: join, Secret: secret, MinMembers: nodes, Logger: logger,
		})
		if err != nil {
			return c, err
		}
		c.services = append(c.services, s)
		join = append(join, s.node.Addr())
		s.cache, err = tier.New(tier.Config[Settings]{
			Cluster: s.node, Namespace: "settings", Loader: load(c.pool), Freshness: contract,
			Origin: tier.Origin{Concurrency: 24}, Logger: logger.With("node", s.node.Name()),
		})
		if err != nil {
			return c, err
		}
	}
	for _, s := range c.services {
		for {
			changed := s.node.ViewChanged()
			if s.node.View().Len() == nodes {
				break
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return c, ctx.Err()
			}
		}
	}
	return c, nil
}

// follow makes node i follow the outbox. All nodes share one group of acknowledgements: an acknowledged position is
// applied on all of them, whichever node followed.
func (c *cluster) follow(i int) {
	s := c.services[i]
	s.feed = newOutbox(c.url, "settings")
	s.feed.told = c.acknowledged
	ctx, stop := context.WithCancel(context.Background())
	s.stop, s.followed = stop, make(chan error, 1)
	go func() { s.followed <- s.cache.Follow(ctx, s.feed) }()
}

// unfollow stops node i's following.
func (c *cluster) unfollow(i int) error {
	s := c.services[i]
	if s.feed == nil {
		return nil
	}
	s.stop()
	err := <-s.followed
	s.feed.Close()
	s.feed = nil
	if errors.Is(err, context.Canceled) || errors.Is(err, tier.ErrClosed) {
		return nil
	}
	return fmt.Errorf("node %d: following: %w", i+1, err)
}

func (c *cluster) acknowledged(position uint64) {
	c.mu.Lock()
	c.acked = max(c.acked, position)
	c.mu.Unlock()
	select {
	case c.told <- struct{}{}:
	default:
	}
}

func (c *cluster) position() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.acked
}

// stop stops all nodes.
func (c *cluster) stop() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for i, s := range c.services {
		err = errors.Join(err, c.unfollow(i))
		if s.cache != nil {
			err = errors.Join(err, s.cache.Close(ctx))
		}
	}
	for _, s := range c.services {
		err = errors.Join(err, s.node.Close())
	}
	if c.pool != nil {
		c.pool.Close()
	}
	return err
}
