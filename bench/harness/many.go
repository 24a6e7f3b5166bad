package harness

import (
	"context"
	"fmt"
	"sync"

	"github.com/weircache/weir/bench/workload"
)

// A Batcher is a Cluster that reads several keys in one call. For a Cluster without it the harness calls Get for all
// keys at once, each in a goroutine of its own, and waits for all of them, as the user of such a cache would.
type Batcher interface {
	// Many reads different keys as a caller on the node. The values are in the order of the keys. If a key could not
	// be read its value is nil and the error says why.
	Many(ctx context.Context, node int, keys []string) ([][]byte, error)
}

// reads reports whether the request reads values.
func (q request) reads() bool { return q.op == workload.Read || q.op == workload.Many }

// many reads a batch and returns an outcome for each key. All have the end of the whole batch, which is what its
// caller waits for.
func (d *driver) many(ctx context.Context, node int, q request, o outcome) []outcome {
	names := make([]string, len(q.keys))
	for i, key := range q.keys {
		names[i] = d.u.names[key]
		d.ledger.asked(key, o.began)
	}
	v := d.visit(node)
	var values [][]byte
	var errs []error
	if b, ok := d.cluster.(Batcher); ok {
		values, errs = batch(ctx, b, node, names)
	} else {
		values, errs = d.each(ctx, node, names)
	}
	o.ended = d.clock.now()
	all := make([]outcome, len(names))
	for i, key := range q.keys {
		all[i] = o
		all[i].further = i > 0
		all[i].err = errs[i]
		d.judge(&all[i], key, values[i], v)
	}
	return all
}

// batch calls Many and assigns its error to the keys without a value.
func batch(ctx context.Context, b Batcher, node int, names []string) ([][]byte, []error) {
	errs := make([]error, len(names))
	values, err := b.Many(ctx, node, names)
	if err == nil && len(values) != len(names) {
		err = fmt.Errorf("harness: %d values for %d keys", len(values), len(names))
	}
	if len(values) != len(names) {
		values = make([][]byte, len(names))
	}
	for i := range errs {
		if len(values[i]) == 0 {
			errs[i] = err
		}
	}
	return values, errs
}

// each calls Get for all names at once.
func (d *driver) each(ctx context.Context, node int, names []string) ([][]byte, []error) {
	values, errs := make([][]byte, len(names)), make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() {
			defer d.guard()
			values[i], errs[i] = d.cluster.Get(ctx, node, name)
		})
	}
	wg.Wait()
	return values, errs
}

// addAll records the same outcome for each key of a request that did not reach a node.
func (r *recorder) addAll(worker int, q request, o outcome) {
	r.add(worker, o)
	o.further = true
	for range len(q.keys) - 1 {
		r.add(worker, o)
	}
}
