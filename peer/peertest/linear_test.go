package peertest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/weircache/weir/tier"
)

// register is an operation on a key: a write that created version, or a read that returned it.
type register struct {
	key     string
	write   bool
	version uint64
}

// registers is the model: each key holds the version of the last write.
var registers = porcupine.Model{
	Partition: func(all []porcupine.Operation) [][]porcupine.Operation {
		byKey := make(map[string][]porcupine.Operation)
		for _, o := range all {
			key := o.Input.(register).key
			byKey[key] = append(byKey[key], o)
		}
		var parts [][]porcupine.Operation
		for _, part := range byKey {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() any { return uint64(0) },
	Step: func(state, input, output any) (bool, any) {
		if in := input.(register); in.write {
			return true, in.version
		}
		return output == state, state
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v: %v", input, output) },
}

// linear lets clients of a healthy cluster write, each time at the origin first and then by Invalidate, and read with
// MaxAge 0. It reports whether some order of all operations explains what they saw.
func linear(t *testing.T, seed uint64, wrap func(tier.Cluster) tier.Cluster) (ok bool, reads int) {
	var mu sync.Mutex // guards operations
	var operations []porcupine.Operation
	Bubble(t, func(t *testing.T) {
		c := New(Options{Nodes: 3, Seed: seed, Wrap: wrap, Freshness: tier.Freshness{TTL: time.Hour, NearTTL: time.Minute}})
		defer func() {
			if err := c.Stop(); err != nil {
				t.Error(err)
			}
		}()
		for i := range 3 {
			if err := c.Start(t.Context(), i); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Settle(settleLimit); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		var at atomic.Int64
		for client := range 6 {
			wg.Go(func() {
				dice := rand.New(rand.NewPCG(seed, uint64(client)))
				_, cache := c.Node(client % 3)
				for range 60 {
					in := register{key: fmt.Sprint("k", dice.IntN(3)), write: dice.IntN(4) == 0}
					ctx, cancel := context.WithTimeout(t.Context(), c.patience())
					op := porcupine.Operation{ClientId: client, Call: at.Add(1)}
					var err error
					if in.write {
						in.version = c.Origin.Write(in.key, false)
						err = cache.Invalidate(ctx, in.key)
					} else {
						var a tier.Answer[Value]
						a, err = cache.Read(ctx, in.key, tier.ReadOptions{MaxAge: 0})
						op.Output = a.Value.Version
					}
					op.Return, op.Input = at.Add(1), in
					cancel()
					if err != nil {
						t.Errorf("seed %d: %+v: %v", seed, in, err)
					}
					mu.Lock()
					operations = append(operations, op)
					mu.Unlock()
					sleep(t.Context(), upTo(dice, 30*time.Millisecond))
				}
			})
		}
		wg.Wait()
	})
	for _, o := range operations {
		if !o.Input.(register).write {
			reads++
		}
	}
	return porcupine.CheckOperations(registers, operations), reads
}

// TestLinear checks that reads with MaxAge 0 on a healthy cluster are linearizable per key.
func TestLinear(t *testing.T) {
	all := 0
	for seed := range uint64(20) {
		ok, reads := linear(t, seed+1, nil)
		if all += reads; !ok {
			t.Errorf("seed %d: no order explains what was read", seed+1)
		}
	}
	t.Logf("%d reads of 20 seeds are linearizable", all)
	if ok, _ := linear(t, 1, func(c tier.Cluster) tier.Cluster { return liar{c} }); ok {
		t.Error("invalidations that are confirmed and not applied are not noticed")
	}
}
