package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/weircache/weir/bench"
	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier"
)

// product is a typical value of a service.
type product struct {
	ID       int64
	Name     string
	Price    float64
	Currency string
	InStock  bool
	Updated  time.Time
	Tags     []string
	Variants []variant
}

type variant struct {
	SKU    string
	Color  string
	Sizes  []int
	Prices map[string]float64
}

func newProduct(variants int) product {
	p := product{
		ID: 4711, Name: "a chair that folds", Price: 49.9, Currency: "EUR", InStock: true,
		Updated: time.Unix(1_700_000_000, 0).UTC(), Tags: []string{"chair", "wood", "garden"},
	}
	for i := range variants {
		p.Variants = append(p.Variants, variant{
			SKU: fmt.Sprintf("sku-%05d", i), Color: "green", Sizes: []int{40, 41, 42 + i}, Prices: map[string]float64{"EUR": 49.9, "CHF": 52.5},
		})
	}
	return p
}

// decode compares the ways to get a struct: from the near tier, which holds it decoded, from the owned tier, which
// holds its encoding, and by decoding alone.
func decode(o options, t *bench.Table) error {
	for _, size := range []struct {
		name     string
		variants int
	}{{"small", 0}, {"large", 10}} {
		if err := decodeRows(o, t, size.name, newProduct(size.variants)); err != nil {
			return err
		}
	}
	return nil
}

func decodeRows(o options, t *bench.Table, name string, want product) (err error) {
	ctx := context.Background()
	open := func(near bool) (*tier.Cache[product], error) {
		f := tier.Freshness{TTL: time.Hour, NearTTL: time.Hour}
		if !near {
			f.NearTTL = -1
		}
		return tier.New(tier.Config[product]{
			Namespace: "decode", Freshness: f, Loader: tier.ByKey(func(context.Context, string) (product, error) { return want, nil }),
		})
	}
	near, err := open(true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, near.Close(ctx)) }()
	owned, err := open(false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, owned.Close(ctx)) }()
	for { // a near tier accepts an entry with a short delay
		a, err := near.Read(ctx, "k", tier.ReadOptions{MaxAge: tier.AnyAge})
		if err != nil {
			return err
		}
		if a.Source == tier.SourceNear {
			break
		}
	}
	if _, err := owned.Get(ctx, "k"); err != nil {
		return err
	}
	own := codec.Msgpack[product]()
	framed, err := own.Append(nil, want)
	if err != nil {
		return err
	}
	packed, err := msgpack.Marshal(&want)
	if err != nil {
		return err
	}
	text, err := json.Marshal(want)
	if err != nil {
		return err
	}
	calls := 20_000
	if o.quick {
		calls = 4000
	}
	ways := []struct {
		name string
		get  func() (product, error)
	}{
		{"a get from the near tier", func() (product, error) { return near.Get(ctx, "k") }},
		{"a get from the owned tier", func() (product, error) { return owned.Get(ctx, "k") }},
		{"weir's codec alone", func() (product, error) { return own.Decode(framed) }},
		{"msgpack.Unmarshal", func() (p product, err error) { err = msgpack.Unmarshal(packed, &p); return p, err }},
		{"json.Unmarshal", func() (p product, err error) { err = json.Unmarshal(text, &p); return p, err }},
	}
	var turns []bench.Contender
	for _, w := range ways {
		got, err := w.get()
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		got.Updated = got.Updated.UTC()
		if !reflect.DeepEqual(got, want) {
			return fmt.Errorf("%s: %+v, want %+v", w.name, got, want)
		}
		turns = append(turns, bench.Contender{Name: w.name, Run: func() (bench.Sample, error) {
			return bench.Batch(1, calls, func(_, n int) error {
				for range n {
					if _, err := w.get(); err != nil {
						return err
					}
				}
				return nil
			})
		}})
	}
	got, err := bench.Rounds(o.rounds, turns...)
	if err != nil {
		return err
	}
	floor := got["msgpack.Unmarshal"]
	for _, w := range ways {
		r := got[w.name]
		t.Add(bench.Row{
			What:   fmt.Sprintf("decode, %s struct, %d B: %s, ns", name, len(framed), w.name),
			Result: fmt.Sprintf("%.0f (%.0f allocations)", r.Median(bench.Nanos), r.Median(bench.Allocs)),
			Floor:  fmt.Sprintf("%.0f msgpack.Unmarshal", floor.Median(bench.Nanos)), Ratio: r.Ratio(floor, bench.Nanos),
		})
	}
	o.log("decode, %s struct: weir's codec %.2f x msgpack.Unmarshal", name, got["weir's codec alone"].Ratio(floor, bench.Nanos))
	return nil
}
