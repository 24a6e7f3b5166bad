// Feed is a worker that follows a log of changes, without a database. Two writers write to an origin and do not know
// about the cache. The node "worker" follows the log of their writes, and the node "front" answers readers. Every read
// that begins after a change was acknowledged sees that change, on every node.
package main

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/peer"
	"github.com/weircache/weir/tier"
)

// Store is the origin: prices, and the log of the writes to them. It implements tier.Feed.
type Store struct {
	mu     sync.Mutex // guards the rest
	prices map[string]int
	log    []tier.Event  // append-only: log[i] has Position i+1
	acked  uint64        // every member has applied the log up to here
	moved  chan struct{} // closed and replaced when log or acked grows
}

// Write sets a price and returns the position of the write. The change and its event become visible together: an event
// that arrived before its write was readable would be applied too early.
func (s *Store) Write(item string, price int) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.prices[item] = price
	position := uint64(len(s.log) + 1)
	s.log = append(s.log, tier.Event{Position: position, Change: tier.Change{Keys: []string{item}}, Time: time.Now()})
	s.move()
	return position
}

func (s *Store) move() { close(s.moved); s.moved = make(chan struct{}) }

// wait blocks until done returns true. It calls done under the lock.
func (s *Store) wait(ctx context.Context, done func() bool) error {
	for ctx.Err() == nil {
		s.mu.Lock()
		ok, moved := done(), s.moved
		s.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

// settled waits until a read on any node returns data at least as new as the write at a position.
func (s *Store) settled(ctx context.Context, at uint64) {
	_ = s.wait(ctx, func() bool { return s.acked >= at })
}

// Bounds implements tier.Feed. This log is neither pruned nor reset, so one epoch suffices.
func (s *Store) Bounds(context.Context) (tier.FeedBounds, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return tier.FeedBounds{Acked: s.acked, End: uint64(len(s.log)), Consecutive: true}, nil
}

// Next implements tier.Feed.
func (s *Store) Next(ctx context.Context, after uint64) (b tier.FeedBatch, err error) {
	err = s.wait(ctx, func() bool {
		b.Events = s.log[after:] // a log that can be pruned or reset must check first, see tier.ErrFeedGap
		return len(b.Events) > 0
	})
	return b, err
}

// Ack implements tier.Feed.
func (s *Store) Ack(_ context.Context, upTo tier.FeedPosition) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acked = max(s.acked, upTo.Position)
	s.move()
	return nil
}

func (s *Store) load(_ context.Context, item string) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.prices[item], nil
}

func run(ctx context.Context) error {
	s := &Store{prices: map[string]int{}, moved: make(chan struct{})}
	s.Write("lamp", 9) // before anyone follows: a new follower need not know about it
	var join []string
	var caches []*tier.Cache[int]
	for _, name := range []string{"worker", "front"} {
		node, err := peer.Start(ctx, peer.Config{Name: name, Join: join, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			return err
		}
		defer node.Close()
		cache, err := tier.New(tier.Config[int]{
			Cluster: node, Namespace: "price", Loader: tier.ByKey(s.load),
			Freshness: tier.Freshness{TTL: time.Hour}, // the feed delivers changes
		})
		if err != nil {
			return err
		}
		defer cache.Close(ctx)
		join, caches = append(join, node.Addr()), append(caches, cache)
	}
	worker, front := caches[0], caches[1]
	following, stop := context.WithCancel(ctx)
	stopped := make(chan error)
	go func() { stopped <- worker.Follow(following, s) }()
	s.settled(ctx, 1) // the worker follows
	for price := 10; price <= 12; price++ {
		s.settled(ctx, s.Write("lamp", price))
		got, err := front.Get(ctx, "lamp")
		fmt.Println("the lamp costs", got, err)
	}
	// Two concurrent writers. Each reads back what it has written through the other node's cache.
	var stale atomic.Int64
	var writers sync.WaitGroup
	for _, item := range []string{"lamp", "chair"} {
		writers.Go(func() {
			for price := 1; price <= 100; price++ {
				s.settled(ctx, s.Write(item, price))
				if got, err := front.Get(ctx, item); got != price || err != nil {
					stale.Add(1)
				}
			}
		})
	}
	writers.Wait()
	fmt.Println(worker.Stats().Follow.Applied, "changes applied,", stale.Load(), "stale answers")
	stop()
	fmt.Println("the worker ends:", <-stopped)
	return nil
}

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}
