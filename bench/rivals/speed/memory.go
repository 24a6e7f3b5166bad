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

// memory measures the heap that an entry takes, with its key, its value and everything else, in a cache that holds
// all entries and was never asked for more. It does so for each of the tiers and for the stores that others build
// on. Maps double in size, so what an entry takes depends on the number of entries: each is measured with four
// counts, evenly spread over a doubling, and the mean is taken.
func memory(o options, t *bench.Table) error {
	count := 100_000
	if o.quick {
		count = 25_000
	}
	holders := []struct {
		name string
		fill func(keys []string) (any, int, error) // what holds the entries, and how many it holds
	}{
		{"owned tier", fillOwned},
		{"near tier", fillNear},
		{"raw ristretto", func(keys []string) (any, int, error) { return fillRistretto(keys, 0) }},
		{"ristretto with expiry", func(keys []string) (any, int, error) { return fillRistretto(keys, forever) }},
		{"otter", func(keys []string) (any, int, error) { return fillOtter(keys, false) }},
		{"otter with expiry", func(keys []string) (any, int, error) { return fillOtter(keys, true) }},
	}
	bytes := make([]float64, len(holders))
	const counts = 4
	for i, h := range holders {
		for j := range counts {
			all, held, err := heapFor(int(float64(count)*math.Pow(2, float64(j)/counts)), h.fill)
			if err != nil {
				return fmt.Errorf("%s: %w", h.name, err)
			}
			if i == 1 { // besides the near tier that cache has a small owned one and everything else
				rest, _, err := heapFor(count, fillLeast)
				if err != nil {
					return err
				}
				all -= rest
			}
			bytes[i] += all / float64(held) / counts
		}
		o.log("memory: %s: %.0f B", h.name, bytes[i])
	}
	for i, h := range holders[:2] {
		for j, floor := range holders[2:] {
			aim := bench.Aim{}
			if j == 0 {
				aim = bench.AtMost(1.2)
			}
			t.Add(bench.Row{
				What:   fmt.Sprintf("memory of an entry, %s, %d-byte value, 16-byte key", h.name, memoryValue),
				Result: fmt.Sprintf("%.0f B", bytes[i]),
				Floor:  fmt.Sprintf("%.0f B %s", bytes[2+j], floor.name),
				Ratio:  bytes[i] / bytes[2+j], Aim: aim,
			})
		}
	}
	return nil
}

// heapFor returns by how much the heap grows when n keys are put into a cache, and how many entries the cache then
// has. The keys are created for the measurement and not held elsewhere: a cache that keeps them has them counted.
func heapFor(n int, fill func(keys []string) (any, int, error)) (bytes float64, held int, err error) {
	before := bench.HeapBytes()
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("product:%08d", i)
	}
	c, held, err := fill(keys)
	if err != nil {
		return 0, 0, err
	}
	clear(keys)
	runtime.KeepAlive(keys)
	keys = nil
	bytes = float64(bench.HeapBytes() - before)
	if held == 0 {
		err = errors.New("it is empty")
	}
	switch c := c.(type) {
	case *tier.Cache[[]byte]:
		err = errors.Join(err, c.Close(context.Background()))
	case *ristretto.Cache[string, []byte]:
		c.Close()
	case *otter.Cache[string, []byte]:
		c.StopAllGoroutines()
	}
	return bytes, held, err
}

// fillOwned fills an owned tier that has room for the keys, without a near tier.
func fillOwned(keys []string) (any, int, error) { return fillTier(keys, int64(len(keys))*1000) }

// fillLeast fills what a cache has besides a near tier.
func fillLeast(keys []string) (any, int, error) { return fillTier(keys, tier.MinBytes) }

func fillTier(keys []string, ownedBytes int64) (any, int, error) {
	c, err := memoryCache(-1, ownedBytes)
	if err != nil {
		return nil, 0, err
	}
	for _, k := range keys {
		if _, err := c.Get(context.Background(), k); err != nil {
			return nil, 0, err
		}
	}
	return c, c.Stats().OwnedEntries, nil
}

// fillNear fills the smallest near tier, to one part in twenty, that holds all keys.
func fillNear(keys []string) (any, int, error) {
	for room := 480.0; room < 1000; room *= 1.05 {
		c, err := memoryCache(int64(float64(len(keys))*room), tier.MinBytes)
		if err != nil {
			return nil, 0, err
		}
		for range 3 { // a near tier may drop entries that arrive in a burst; a dropped entry comes back
			near := 0
			for _, k := range keys {
				a, err := c.Read(context.Background(), k, tier.ReadOptions{MaxAge: tier.AnyAge})
				if err != nil {
					return nil, 0, err
				}
				if a.Source == tier.SourceNear {
					near++
				}
			}
			if near == len(keys) {
				return c, near, nil
			}
		}
		if err := c.Close(context.Background()); err != nil {
			return nil, 0, err
		}
	}
	return nil, 0, errors.New("1000 bytes for each key are not enough")
}

// fillRistretto uses ten counters per entry, as ristretto's README recommends.
func fillRistretto(keys []string, ttl time.Duration) (any, int, error) {
	c, err := ristretto.NewCache(&ristretto.Config[string, []byte]{
		NumCounters: int64(len(keys)) * 10, MaxCost: int64(len(keys)), BufferItems: 64, IgnoreInternalCost: true,
	})
	if err != nil {
		return nil, 0, err
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
	return c, held, nil
}

func fillOtter(keys []string, expiry bool) (any, int, error) {
	o := &otter.Options[string, []byte]{MaximumSize: len(keys)}
	if expiry {
		o.ExpiryCalculator = otter.ExpiryWriting[string, []byte](forever)
	}
	c, err := otter.New(o)
	if err != nil {
		return nil, 0, err
	}
	for _, k := range keys {
		c.Set(k, value(memoryValue))
	}
	c.CleanUp()
	return c, c.EstimatedSize(), nil
}

func memoryCache(nearBytes, ownedBytes int64) (*tier.Cache[[]byte], error) {
	f := tier.Freshness{TTL: forever, NearTTL: forever}
	if nearBytes < 0 {
		f.NearTTL = -1
	}
	c := cacheConfig("memory", f)
	c.Loader = tier.ByKey(func(context.Context, string) ([]byte, error) { return value(memoryValue), nil })
	c.NearBytes, c.OwnedBytes = nearBytes, ownedBytes
	return tier.New(c)
}
