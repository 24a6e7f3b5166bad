package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"github.com/weircache/weir/bench/harness"
)

// envelope puts the time at which a value is due before it.
func envelope(due time.Time, b []byte) []byte {
	return append(binary.LittleEndian.AppendUint64(make([]byte, 0, 8+len(b)), uint64(due.UnixNano())), b...)
}

// open returns the value and when it is due. Nothing is due: there is no value.
func open(b []byte) (value []byte, due time.Time) {
	if len(b) < 8 {
		return nil, time.Time{}
	}
	return b[8:], time.Unix(0, int64(binary.LittleEndian.Uint64(b)))
}

// softTTL is a Redis whose values carry a soft TTL, which ends before the server's.
//
// The lock is that of redis.io, Distributed Locks with Redis, section Correct Implementation with a Single Instance: SET NX PX
// with a random value, and a script that releases only its own. Here the script stores the value as well, and
// an invalidation deletes the lock, so a load that an invalidation overtakes stores nothing. On a miss, readers that do not
// get the lock wait for its holder, as in redis.io, Redis cache-aside with Go, section Stampede protection with a Lua lock.
type softTTL struct{ usesRedis }

func (t softTTL) Name() string { return t.named("redis+softttl") }
func (t softTTL) Setup() string {
	return t.server() + "with as many bytes as all tiers of weir beside what it takes empty (allkeys-lru, nothing on disk), rueidis v1.0.79 without copies on its side; a value carries its TTL as a soft one, and one reader of the cluster refreshes it in the background under a lock (SET NX PX) while it may be stale; x/sync/singleflight on each node; what the server itself uses is in neither the CPU nor the heap row"
}
func (softTTL) Limits() []string {
	return []string{noLimit, "copies near the caller", "cut of its network"}
}

func (t softTTL) Start(ctx context.Context, env harness.Env) (harness.Cluster, error) {
	s, err := t.start(ctx)
	if err != nil {
		return nil, err
	}
	l, err := startLocals(env.Scenario.Cluster.Nodes, s, func(node int) (store, error) {
		c, err := s.Dial(0)
		return &softStore{flights: flights{origin: origin{env, node}}, redis: c}, err
	})
	if err != nil {
		return nil, err
	}
	if err := s.limit(ctx, bytesOf(env)*int64(env.Scenario.Cluster.Nodes)); err != nil {
		return nil, errors.Join(err, l.Close(ctx))
	}
	return l, nil
}

type softStore struct {
	client
	flights
	redis rueidis.Client
}

// lockOf returns the name of a key's lock. Values have another prefix, so no key is the lock of another.
func lockOf(key string) string { return "lock:" + key }
func nameOf(key string) string { return "value:" + key }

var (
	storeAndUnlock = rueidis.NewLuaScript(`if redis.call("GET",KEYS[2]) == ARGV[1] then redis.call("DEL",KEYS[2]) return redis.call("SET",KEYS[1],ARGV[2],"PX",ARGV[3]) end return 0`)
	unlock         = rueidis.NewLuaScript(`if redis.call("GET",KEYS[1]) == ARGV[1] then return redis.call("DEL",KEYS[1]) end return 0`)
)

func (s *softStore) get(ctx context.Context, key string) ([]byte, error) {
	b, due, err := s.look(ctx, key)
	late := time.Since(due)
	switch {
	case err != nil || b != nil && late < 0:
		return b, err
	case b == nil:
		return s.do(ctx, key, func(ctx context.Context) ([]byte, error) { return s.fill(ctx, key, true) })
	case late < s.env.Scenario.Cluster.Freshness.StaleWhileRevalidate.D():
		s.start(ctx, "refresh:"+key, func(ctx context.Context) ([]byte, error) { return s.fill(ctx, key, false) })
		return b, nil
	}
	fresh, err := s.do(ctx, key, func(ctx context.Context) ([]byte, error) { return s.fill(ctx, key, true) })
	if err != nil && late < s.env.Scenario.Cluster.Freshness.StaleIfError.D() {
		return b, nil
	}
	return fresh, err
}

// look reads the server. The value is nil if there is none.
func (s *softStore) look(ctx context.Context, key string) ([]byte, time.Time, error) {
	b, err := s.redis.Do(ctx, s.redis.B().Get().Key(nameOf(key)).Build()).AsBytes()
	if rueidis.IsRedisNil(err) {
		err = nil
	}
	value, due := open(b)
	return value, due, err
}

// getMany reads all keys with one MGET.
func (s *softStore) getMany(ctx context.Context, keys []string) (map[string][]byte, error) {
	names := make([]string, len(keys))
	for i, key := range keys {
		names[i] = nameOf(key)
	}
	answers, err := s.redis.Do(ctx, s.redis.B().Mget().Key(names...).Build()).ToArray()
	found := make(map[string][]byte, len(answers))
	for i, a := range answers {
		if text, err := a.ToString(); err == nil { // else there is no value
			if b, due := open([]byte(text)); time.Until(due) > 0 {
				found[keys[i]] = b
			}
		}
	}
	return found, err
}

// lockPoll is how often a reader looks for the value that another node loads.
const lockPoll = 5 * time.Millisecond

// fill loads a key if it gets the lock. If another node has the lock, it waits for that node's value, or returns nil.
func (s *softStore) fill(ctx context.Context, key string, wait bool) ([]byte, error) {
	for {
		if b, due, err := s.look(ctx, key); err != nil || b != nil && time.Until(due) > 0 {
			return b, err // stored since the caller looked
		}
		token := rand.Text()
		err := s.redis.Do(ctx, s.redis.B().Set().Key(lockOf(key)).Value(token).Nx().Px(s.timeout()).Build()).Error()
		switch {
		case err == nil:
			return s.loadLocked(ctx, key, token)
		case !rueidis.IsRedisNil(err):
			return nil, err
		case !wait:
			return nil, nil
		}
		select {
		case <-time.After(lockPoll):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (s *softStore) loadLocked(ctx context.Context, key, token string) ([]byte, error) {
	due := time.Now().Add(s.ttl()) // ages count from the start of the load
	b, err := s.load(ctx, key)
	if err != nil {
		return nil, errors.Join(err, unlock.Exec(context.WithoutCancel(ctx), s.redis, []string{lockOf(key)}, []string{token}).Error())
	}
	f := s.env.Scenario.Cluster.Freshness
	hard := time.Until(due) + max(f.StaleWhileRevalidate.D(), f.StaleIfError.D())
	return b, storeAndUnlock.Exec(ctx, s.redis, []string{nameOf(key), lockOf(key)},
		[]string{token, rueidis.BinaryString(envelope(due, b)), strconv.FormatInt(max(1, hard.Milliseconds()), 10)}).Error()
}

func (s *softStore) drop(ctx context.Context, key string) error {
	return s.redis.Do(ctx, s.redis.B().Del().Key(nameOf(key), lockOf(key)).Build()).Error()
}

func (s *softStore) close() { s.redis.Close() }
