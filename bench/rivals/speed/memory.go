package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"time"

	"github.com/dgraph-io/ristretto/v2"
	"github.com/maypok86/otter/v2"

	"github.com/weircache/weir/bench"
	"github.com/weircache/weir/tier"
)

const memoryValue = 256

// holder is a cache that is filled with keys. It has room for all of them.
type holder struct {
	name string
	fill func(keys []string) (held int, close func(), err error)
}

// memory measures the heap that an entry takes, with its key, its value and everything else, in a cache that holds
// all entries and was never asked for more. It does so for each of the tiers and for the stores that others build
// on. Maps double in size, so what an entry takes depends on the number of entries: each round has another number,
// evenly spread over a doubling.
func memory(o options, t *bench.Table) error {
	count := 100_000
	if o.quick {
		count = 25_000
	}
	holders := []holder{
		{"owned tier", func(keys []string) (int, func(), error) { return fillTier(keys, -1, int64(len(keys))*1000) }},
		{"near tier", fillNear},
		{"raw ristretto", func(keys []string) (int, func(), error) { return fillRistretto(keys, 0) }},
		{"ristretto with expiry", func(keys []string) (int, func(), error) { return fillRistretto(keys, forever) }},
		{"otter", func(keys []string) (int, func(), error) { return fillOtter(keys, false) }},
		{"otter with expiry", func(keys []string) (int, func(), error) { return fillOtter(keys, true) }},
	}
	bytes := make([][]float64, len(holders)) // of an entry, by round
	for i, h := range holders {
		for round := range o.rounds {
			n := int(float64(count) * math.Pow(2, float64(round)/float64(o.rounds)))
			all, held, err := heapFor(n, h.fill)
			if err == nil && h.name == "near tier" { // besides it that cache has a small owned one and everything else
				var rest float64
				rest, _, err = heapFor(n, func(keys []string) (int, func(), error) { return fillTier(keys, -1, tier.MinBytes) })
				all -= rest
			}
			if err != nil {
				return fmt.Errorf("%s: %w", h.name, err)
			}
			bytes[i] = append(bytes[i], all/float64(held))
		}
		o.log("memory: %s: %.0f B", h.name, bench.Median(bytes[i]))
	}
	for i, h := range holders[:2] {
		for j, floor := range holders[2:] {
			row := bench.Row{What: fmt.Sprintf("memory of an entry, %s, %d-byte value, 16-byte key, B", h.name, memoryValue), Floor: floor.name}
			if j == 0 {
				row.Aim = bench.AtMost(1.2)
			}
			for round, b := range bytes[i] {
				row.Rounds = append(row.Rounds, bench.Round{Result: b, Floor: bytes[2+j][round]})
			}
			t.Rows = append(t.Rows, row)
		}
	}
	return nil
}

// heapFor returns by how much the heap grows when n keys are put into a cache, and how many entries the cache then
// has. The keys are created for the measurement and not held elsewhere: a cache that keeps them has them counted.
func heapFor(n int, fill func(keys []string) (int, func(), error)) (bytes float64, held int, err error) {
	before := bench.HeapBytes()
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("product:%08d", i)
	}
	held, done, err := fill(keys)
	if err != nil {
		return 0, 0, err
	}
	clear(keys)
	runtime.KeepAlive(keys)
	keys = nil
	bytes = float64(bench.HeapBytes() - before)
	done()
	if held == 0 {
		err = errors.New("it is empty")
	}
	return bytes, held, err
}

// fillTier fills the near tier, or the owned tier if nearBytes is -1.
func fillTier(keys []string, nearBytes, ownedBytes int64) (int, func(), error) {
	c := cacheConfig("memory", tier.Freshness{TTL: forever, NearTTL: forever})
	if nearBytes < 0 {
		c.Freshness.NearTTL = -1
	}
	c.Loader = tier.ByKey(func(context.Context, string) ([]byte, error) { return value(memoryValue), nil })
	c.NearBytes, c.OwnedBytes = nearBytes, ownedBytes
	cache, err := tier.New(c)
	if err != nil {
		return 0, nil, err
	}
	done := func() { _ = cache.Close(context.Background()) }
	near := 0
	for range 3 { // a near tier may drop entries that arrive in a burst; a dropped entry comes back
		near = 0
		for _, k := range keys {
			a, err := cache.Read(context.Background(), k, tier.ReadOptions{MaxAge: tier.AnyAge})
			if err != nil {
				done()
				return 0, nil, err
			}
			if a.Source == tier.SourceNear {
				near++
			}
		}
		if nearBytes < 0 {
			return cache.Stats().OwnedEntries, done, nil
		}
	}
	return near, done, nil
}

// fillNear fills the smallest near tier, to one part in twenty, that holds all keys.
func fillNear(keys []string) (int, func(), error) {
	for room := 480.0; room < 1000; room *= 1.05 {
		near, done, err := fillTier(keys, int64(float64(len(keys))*room), tier.MinBytes)
		if err != nil || near == len(keys) {
			return near, done, err
		}
		done()
	}
	return 0, nil, errors.New("1000 bytes for each key are not enough")
}

// fillRistretto uses ten counters per entry, as ristretto's README recommends.
func fillRistretto(keys []string, ttl time.Duration) (int, func(), error) {
	c, err := ristretto.NewCache(&ristretto.Config[string, []byte]{
		NumCounters: int64(len(keys)) * 10, MaxCost: int64(len(keys)), BufferItems: 64, IgnoreInternalCost: true,
	})
	if err != nil {
		return 0, nil, err
	}
	held := 0
	for i, k := range keys {
		c.SetWithTTL(k, value(memoryValue), 1, ttl)
		if i%1000 == 999 { // otherwise its buffer drops some
			c.Wait()
		}
	}
	c.Wait()
	for _, k := range keys {
		if _, ok := c.Get(k); ok {
			held++
		}
	}
	return held, c.Close, nil
}

func fillOtter(keys []string, expiry bool) (int, func(), error) {
	o := &otter.Options[string, []byte]{MaximumSize: len(keys)}
	if expiry {
		o.ExpiryCalculator = otter.ExpiryWriting[string, []byte](forever)
	}
	c, err := otter.New(o)
	if err != nil {
		return 0, nil, err
	}
	for _, k := range keys {
		c.Set(k, value(memoryValue))
	}
	c.CleanUp()
	return c.EstimatedSize(), func() { c.StopAllGoroutines() }, nil
}
