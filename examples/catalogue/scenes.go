package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"time"
)

// demo is one run of the demonstration.
type demo struct {
	o      options
	c      *cluster
	l      *load
	m      *meter
	t      *table
	failed int
}

// legend explains the columns of the table.
const legend = `
Each line below is a second of HTTP requests to all nodes. The same traffic goes to a naive cache-aside beside them.
  near%%, owned%%, fill%%  answered from the node's own memory, from the copy of the key's owner, by a call of the database
  stale%%                answered with a copy past its time while it is refreshed, as the contract allows
  origin/s, loads       calls of the database, and the most of them at once; the cap for all nodes is %d
  by cause              why: cold (first time), expired, refresh_ahead (soon to expire), fenced (invalidated), owner_lost
`

func demonstrate(ctx context.Context, o options) (err error) {
	c, err := newCluster(o.ports)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	fmt.Printf("%d products in SQLite, %d node processes, a miss costs about %v.\n", o.products, nodes, missCost)
	if err := createStore(ctx, filepath.Join(c.dir, "products.db"), o.products); err != nil {
		return err
	}
	for i := range nodes {
		if err := c.start(ctx, i); err != nil {
			return err
		}
	}
	if err := c.whole(ctx, nodes); err != nil {
		return err
	}
	urls := make([]string, nodes)
	for i := range nodes {
		urls[i] = c.url(i)
		fmt.Printf("  node %d  %s   page: %s/weir/  metrics: %s/weir/metrics\n", i, urls[i], urls[i], urls[i])
	}
	fmt.Printf(legend, concurrency)
	d := &demo{o: o, c: c, l: newLoad(urls, o.products-1000, o.rate), m: newMeter(filepath.Join(c.dir, "journal"))}
	d.t = &table{d: d}
	for i := range d.l.up {
		d.l.up[i].Store(true)
	}

	traffic, halt := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer halt()
	wg.Go(func() { d.l.run(traffic, o.seed) })
	wg.Go(func() { d.t.run(traffic) })
	for _, scene := range []func(context.Context) error{d.coldStart, d.storm, d.expiry, d.write, d.kill} {
		if err := scene(ctx); err != nil {
			return err
		}
	}
	halt()
	wg.Wait()
	if err := d.summary(); err != nil {
		return err
	}
	if o.hold {
		fmt.Println("\nThe nodes stay up. Ctrl-C ends them.")
		<-ctx.Done()
	}
	if d.failed > 0 {
		return fmt.Errorf("%d claims did not hold", d.failed)
	}
	return ctx.Err()
}

// claim prints what was checked and whether it held.
func (d *demo) claim(held bool, format string, args ...any) {
	verdict := "  ok      "
	if !held {
		verdict = "  FAILED  "
		d.failed++
	}
	d.t.say(verdict + fmt.Sprintf(format, args...))
}

// pause lets the traffic run for a while.
func (d *demo) pause(ctx context.Context, of time.Duration) error {
	if d.o.quick {
		of /= 4
	}
	return sleep(ctx, of)
}

func sleep(ctx context.Context, of time.Duration) error {
	t := time.NewTimer(of)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *demo) coldStart(ctx context.Context) error {
	d.t.scene("1. Cold start: Zipf traffic on empty caches.")
	if err := d.pause(ctx, 6*time.Second); err != nil {
		return err
	}
	if err := d.m.read(); err != nil {
		return err
	}
	weir, keys := d.m.most('w')
	d.claim(weir <= concurrency, "at most %d loads at once, the cap is %d; %d keys loaded", weir, concurrency, keys)
	return nil
}

func (d *demo) storm(ctx context.Context) error {
	const callers = 200
	d.t.scene(fmt.Sprintf("2. The storm: %d callers on each of %d nodes ask for one cold key at once.", callers, nodes))
	key := sku(d.o.products - 1) // the traffic never asks for the last thousand keys
	slowest, failures := d.all(callers, "product", key)
	naiveSlowest, _ := d.all(callers, "naive", key)
	if err := d.m.read(); err != nil {
		return err
	}
	_, calls := d.m.count('w', key)
	_, naive := d.m.count('n', key)
	d.claim(calls == 1 && failures == 0, "%d callers, %d origin call, %d errors, slowest answer %v", callers*nodes, calls, failures, slowest.Round(time.Millisecond))
	d.t.say(fmt.Sprintf("          naive cache-aside: %d callers, %d origin calls, slowest answer %v", callers*nodes, naive, naiveSlowest.Round(time.Millisecond)))
	return ctx.Err()
}

// all makes the given number of callers on every node ask for one key at once.
func (d *demo) all(callers int, path, key string) (slowest time.Duration, failures int) {
	var mu sync.Mutex // guards the results
	var wg sync.WaitGroup
	gate := make(chan struct{})
	for node := range nodes {
		for range callers {
			wg.Go(func() {
				<-gate
				began := time.Now()
				_, _, _, err := d.l.get(node, path, key)
				mu.Lock()
				defer mu.Unlock()
				slowest = max(slowest, time.Since(began))
				if err != nil {
					failures++
				}
			})
		}
	}
	close(gate)
	wg.Wait()
	return slowest, failures
}

func (d *demo) expiry(ctx context.Context) error {
	d.t.scene(fmt.Sprintf("3. The hottest key expires under load (fresh for %v, refreshed ahead or behind).", contract.TTL))
	if err := d.m.read(); err != nil {
		return err
	}
	d.l.take()
	before := d.l.sum()
	_, loads := d.m.count('w', d.l.hot)
	if err := sleep(ctx, contract.TTL+2*time.Second); err != nil {
		return err
	}
	if err := d.m.read(); err != nil {
		return err
	}
	d.l.take()
	after := d.l.sum()
	_, now := d.m.count('w', d.l.hot)
	waited := after.hotWaited - before.hotWaited
	d.claim(now > loads && waited == 0, "refreshed %d times while %d callers asked for it; %d of them waited", now-loads, after.hot-before.hot, waited)
	return nil
}

func (d *demo) write(ctx context.Context) error {
	const rounds = 20
	d.t.scene(fmt.Sprintf("4. Writes: %d times one node changes a price, then every node is asked.", rounds))
	old := 0
	for i := range rounds {
		key := sku(i % 5) // the hottest keys, cached everywhere
		var wrote Product
		if err := d.put(ctx, i%nodes, key, 1000+i, &wrote); err != nil {
			return err
		}
		for node := range nodes {
			var p Product
			_, _, body, err := d.l.get(node, "product", key)
			if err == nil {
				err = json.Unmarshal(body, &p)
			}
			if err != nil {
				return fmt.Errorf("reading %s from node %d: %w", key, node, err)
			}
			if p.Version < wrote.Version {
				old++
			}
		}
	}
	d.claim(old == 0, "%d writes, %d reads right after them, %d old answers", rounds, rounds*nodes, old)
	return nil
}

func (d *demo) put(ctx context.Context, node int, key string, cents int, into *Product) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, fmt.Sprintf("%s/product/%s?cents=%d", d.l.urls[node], key, cents), nil)
	if err != nil {
		return err
	}
	resp, err := d.l.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("writing %s on node %d: %s", key, node, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

func (d *demo) kill(ctx context.Context) error {
	const victim = nodes - 1
	d.t.scene(fmt.Sprintf("5. Node %d is killed with SIGKILL under load, and comes back.", victim))
	d.l.take()
	before := d.l.sum()
	d.l.up[victim].Store(false) // like a load balancer that sees the connections break
	d.t.keepCauses(victim)
	if err := d.c.kill(victim); err != nil {
		return err
	}
	if err := d.m.read(); err != nil {
		return err
	}
	d.m.killed(victim)
	if err := d.c.whole(ctx, nodes-1); err != nil {
		return err
	}
	d.t.say("          the others have noticed")
	if err := d.pause(ctx, 3*time.Second); err != nil {
		return err
	}
	if err := d.c.start(ctx, victim); err != nil {
		return err
	}
	if err := d.c.whole(ctx, nodes); err != nil {
		return err
	}
	d.l.up[victim].Store(true)
	d.t.say("          it is back")
	if err := d.pause(ctx, 4*time.Second); err != nil {
		return err
	}
	d.l.take()
	after := d.l.sum()
	errs := after.errors - before.errors
	d.claim(errs == 0, "%d requests to nodes that were up meanwhile, %d errors", after.requests-before.requests, errs)
	return nil
}

func (d *demo) summary() error {
	if err := d.m.read(); err != nil {
		return err
	}
	d.l.take()
	sum := d.l.sum()
	weir, _ := d.m.count('w', "")
	naive, _ := d.m.count('n', "")
	peak, keys := d.m.most('w')
	naivePeak, naiveKeys := d.m.most('n')
	d.t.scene("6. Summary")
	d.t.say(fmt.Sprintf("          %-22s %12s %12s", "", "weir", "naive"))
	row := func(name string, a, b any) { d.t.say(fmt.Sprintf("          %-22s %12v %12v", name, a, b)) }
	row("requests", sum.requests, "the same")
	row("origin calls", weir, naive)
	row("different keys asked", keys, naiveKeys)
	row("origin calls a key", fmt.Sprintf("%.2f", float64(weir)/float64(max(keys, 1))), fmt.Sprintf("%.2f", float64(naive)/float64(max(naiveKeys, 1))))
	row("most loads at once", peak, naivePeak)
	d.claim(peak <= concurrency, "never more than %d loads at once, the cap is %d", peak, concurrency)
	d.claim(weir < naive, "naive cache-aside asked the origin %.1f times as often", float64(naive)/float64(max(weir, 1)))
	return nil
}
