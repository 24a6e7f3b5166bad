package main

import (
	"context"
	"sync"

	"github.com/redis/rueidis"

	"github.com/weircache/weir/bench/harness"
)

// pubSub is otter on each node, whose invalidations go to the other nodes through Redis.
//
// It subscribes as the README of rueidis v1.0.79 has it (section Pub/Sub). What is published while a node's connection
// is down does not reach it, so a node clears its cache with each subscription (section Subscription confirmations).
type pubSub struct{ usesRedis }

func (p pubSub) Name() string { return p.named("otter+pubsub") }
func (p pubSub) Setup() string {
	return loading{}.Setup() + "; an invalidation deletes on its node and is published through " + p.server() + "with rueidis v1.0.79, to which each node subscribes, and a node that subscribes again clears its cache; what the server itself uses is in neither the CPU nor the heap row"
}
func (pubSub) Limits() []string {
	return []string{"confirmation of an invalidation by other nodes (it is published, not awaited)", "shared load of a key between nodes", noLimit, "cut of its network"}
}

func (p pubSub) Start(ctx context.Context, env harness.Env) (harness.Cluster, error) {
	s, err := p.start(ctx)
	if err != nil {
		return nil, err
	}
	return startLocals(env.Scenario.Cluster.Nodes, subscribed{s}, func(node int) (store, error) { return subscribe(ctx, env, node, s) })
}

// subscribed is a server that only passes messages on.
type subscribed struct{ *redisServer }

func (subscribed) flush(context.Context) error         { return nil } // the nodes clear their own
func (subscribed) held(context.Context) (int64, error) { return 0, nil }

type pubSubStore struct {
	*otterStore
	redis rueidis.Client
	wait  sync.WaitGroup // for the subscription
}

// invalidations is the channel of the keys that are invalidated.
const invalidations = "invalidations"

// subscribe makes the store of a node, and waits for its subscription.
func subscribe(ctx context.Context, env harness.Env, node int, r *redisServer) (*pubSubStore, error) {
	o, err := newOtter(env, node)
	if err != nil {
		return nil, err
	}
	s := &pubSubStore{otterStore: o}
	if s.redis, err = r.Dial(0); err != nil {
		o.close()
		return nil, err
	}
	first, ended := make(chan struct{}), make(chan error, 1)
	var once sync.Once
	listening := rueidis.WithOnSubscriptionHook(context.Background(), func(rueidis.PubSubSubscription) {
		s.clear()
		once.Do(func() { close(first) })
	})
	s.wait.Go(func() {
		ended <- s.redis.Receive(listening, s.redis.B().Subscribe().Channel(invalidations).Build(), func(m rueidis.PubSubMessage) {
			s.cache.Invalidate(m.Message)
		})
	})
	select {
	case <-first:
		return s, nil
	case err = <-ended:
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.close()
	return nil, err
}

func (s *pubSubStore) drop(ctx context.Context, key string) error {
	s.cache.Invalidate(key)
	return s.redis.Do(ctx, s.redis.B().Publish().Channel(invalidations).Message(key).Build()).Error()
}

func (s *pubSubStore) close() {
	s.redis.Close()
	s.wait.Wait()
	s.otterStore.close()
}
