package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/weircache/weir/bench"
	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier"
)

// memory measures the heap that an entry of each tier takes: its key, its value and all else.
func memory(o options, t *bench.Table) error {
	count := 200_000
	if o.quick {
		count = 50_000
	}
	const size = 256
	keys := make([]string, count)
	for i := range keys {
		keys[i] = fmt.Sprintf("product:%08d", i)
	}
	// The tiers keep these very strings, as they would a service's: their bytes are
	// added below, their headers are in the tiers.
	keyBytes := float64(len(keys[0]))
	owned, ownedEntries, _, err := heap(keys, size, -1)
	if err != nil {
		return err
	}
	if ownedEntries == 0 {
		return errors.New("the owned tier is empty")
	}
	anEntry := float64(owned) / float64(ownedEntries)
	both, bothOwned, near, err := heap(keys, size, int64(count)*1000)
	if err != nil {
		return err
	}
	if near == 0 {
		return errors.New("the near tier is empty")
	}
	nearEntry := (float64(both) - anEntry*float64(bothOwned)) / float64(near)
	for _, r := range []struct {
		tier  string
		bytes float64
		n     int
	}{{"owned", anEntry, ownedEntries}, {"near", nearEntry, near}} {
		all := r.bytes + keyBytes
		t.Add(bench.Row{
			What:   fmt.Sprintf("memory of an entry, %s tier, %d-byte value, %.0f-byte key", r.tier, size, keyBytes),
			Result: fmt.Sprintf("%.0f B", all),
			Floor:  fmt.Sprintf("%.0f B key and value", keyBytes+size),
			Ratio:  all / (keyBytes + size),
		})
		o.log("memory: %s tier: %.0f B (%d entries)", r.tier, all, r.n)
	}
	return nil
}

// heap fills a cache and returns what the heap grew by, and how many entries each tier has.
func heap(keys []string, size int, nearBytes int64) (bytes int64, owned, near int, err error) {
	ctx := context.Background()
	before := bench.HeapBytes()
	f := tier.Freshness{TTL: forever, NearTTL: forever}
	if nearBytes < 0 {
		f.NearTTL = -1
	}
	c, err := tier.New(tier.Config[[]byte]{
		Namespace: "memory",
		Loader:    tier.ByKey(func(context.Context, string) ([]byte, error) { return value(size), nil }),
		Codec:     codec.Raw[[]byte](),
		Freshness: f,
		NearBytes: nearBytes, OwnedBytes: int64(len(keys)) * 1000,
	})
	if err != nil {
		return 0, 0, 0, err
	}
	defer func() { err = errors.Join(err, c.Close(ctx)) }()
	for range 2 { // what the near tier's buffers dropped comes back
		for _, k := range keys {
			if _, err := c.Get(ctx, k); err != nil {
				return 0, 0, 0, err
			}
		}
	}
	if nearBytes >= 0 {
		for _, k := range keys {
			a, err := c.Read(ctx, k, tier.ReadOptions{MaxAge: tier.AnyAge})
			if err != nil {
				return 0, 0, 0, err
			}
			if a.Source == tier.SourceNear {
				near++
			}
		}
	}
	bytes = bench.HeapBytes() - before
	owned = c.Stats().OwnedEntries
	runtime.KeepAlive(c)
	return bytes, owned, near, nil
}
