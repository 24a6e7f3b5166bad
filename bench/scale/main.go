// Command scale measures what one node of a large cluster pays: memory, connections, goroutines, bytes and CPU.
//
//	go run ./bench/scale                    # 10 and 50 whole nodes; 10 and 100 caches
//	go run ./bench/scale -whole 30 -caches ""
//
// Whole nodes are unmodified peer.Node and tier.Cache, over the simulated network, all in this process and in real
// time. Hundreds of them do not fit, so larger clusters consist of caches: unmodified tier.Cache over an in-memory
// cluster with one view for all. That cluster encodes and decodes calls but has neither connections nor gossip. See
// scale.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/weircache/weir/bench"
	"github.com/weircache/weir/tier"
)

// options configure the duration and the size of the measurements.
type options struct {
	rest, load time.Duration
	rate       int // invalidations per second
	say        func(format string, args ...any)
}

// A result is the measurement of one cluster.
type result struct {
	kind                       string // "whole" or "caches"
	members                    int
	heap, stack, goroutines    float64 // of one node
	connections                float64 // mean number that a node with a cache has opened
	idleConnections            int     // of all nodes, before they had caches
	rest                       reading // of one node per second
	restCPU, startCPU, loadCPU float64 // cores; startCPU: seconds. loadCPU is of the whole process
	invalidations              int
	seconds                    float64
	sender, senderIn, receiver int64 // bytes of the load
	calls                      int64 // of the node that invalidates
}

// process is the resource usage of this process at one moment.
type process struct {
	heap, stack uint64
	goroutines  int
}

func measureProcess() process {
	runtime.GC()
	runtime.GC() // two collections free what pools held
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return process{m.HeapAlloc, m.StackInuse, runtime.NumGoroutine()}
}

func (r *result) perNode(before, after process, n int) {
	r.heap = (float64(after.heap) - float64(before.heap)) / float64(n)
	r.stack = (float64(after.stack) - float64(before.stack)) / float64(n)
	r.goroutines = float64(after.goroutines-before.goroutines) / float64(n)
}

// invalidate starts invalidations of single keys at the configured rate, without waiting for earlier ones, and
// returns how many were confirmed. It does not make up for those that the machine delays.
func invalidate(ctx context.Context, c *tier.Cache[string], o options) (confirmed int, err error) {
	const tick = 10 * time.Millisecond
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var mu sync.Mutex // guards confirmed and err
	var wg sync.WaitGroup
	each, key := max(1, o.rate*int(tick/time.Millisecond)/1000), 0
	for range int(o.load / tick) {
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
		for range each {
			key++
			name := "product-" + strconv.Itoa(key)
			wg.Go(func() {
				e := c.Invalidate(ctx, name)
				mu.Lock()
				defer mu.Unlock()
				if e == nil {
					confirmed++
				} else {
					err = e
				}
			})
		}
	}
	wg.Wait()
	return confirmed, err
}

func numbers(text string) (out []int, err error) {
	for f := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' }) {
		n, err := strconv.Atoi(f)
		if err != nil || n < 2 || n > 4000 {
			return nil, fmt.Errorf("%q: a number of members is from 2 to 4000", f)
		}
		out = append(out, n)
	}
	return out, nil
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("scale", flag.ContinueOnError)
	wholes := flags.String("whole", "10,50", "numbers of whole nodes")
	cached := flags.String("caches", "10,100", "numbers of caches in memory")
	var o options
	flags.DurationVar(&o.rest, "rest", 10*time.Second, "how long a cluster is watched at rest")
	flags.DurationVar(&o.load, "load", 5*time.Second, "how long there are invalidations")
	flags.IntVar(&o.rate, "rate", 1000, "invalidations a second")
	verbose := flags.Bool("v", false, "say on standard error how far it is")
	if err := flags.Parse(args); err != nil {
		return err
	}
	began := time.Now()
	o.say = func(format string, args ...any) {
		if *verbose {
			fmt.Fprintf(os.Stderr, "%5.1fs "+format+"\n", append([]any{time.Since(began).Seconds()}, args...)...)
		}
	}
	results, err := measureAll(ctx, *wholes, *cached, o)
	if len(results) > 0 {
		fmt.Fprintln(out, table(results))
	}
	return err
}

// measureAll measures whole nodes and caches. After an error it returns the results until then.
func measureAll(ctx context.Context, wholes, cached string, o options) (all []result, err error) {
	for _, part := range []struct {
		kind, sizes string
		measure     func(context.Context, int, options) (result, error)
	}{{"whole", wholes, whole}, {"caches", cached, boarded}} {
		sizes, err := numbers(part.sizes)
		if err != nil {
			return all, err
		}
		for _, n := range sizes {
			r, err := part.measure(ctx, n, o)
			if err != nil {
				return all, fmt.Errorf("%d %s: %w", n, part.kind, err)
			}
			r.kind = part.kind
			all = append(all, r)
		}
	}
	return all, nil
}

// table returns what one node pays, with a column for each cluster. A cell is empty if the kind of cluster does not
// have the number.
func table(results []result) string {
	rows := [][]string{{"per node"}}
	for _, r := range results {
		rows[0] = append(rows[0], fmt.Sprintf("%d %s", r.members, r.kind))
	}
	row := func(kind, name, format string, of func(r result) float64) {
		cells := []string{name}
		for _, r := range results {
			switch {
			case kind != "" && kind != r.kind:
				cells = append(cells, "")
			case format == "":
				cells = append(cells, bench.Count(of(r)))
			default:
				cells = append(cells, fmt.Sprintf(format, of(r)))
			}
		}
		rows = append(rows, cells)
	}
	row("", "heap, KiB", "", func(r result) float64 { return r.heap / 1024 })
	row("", "stacks, KiB", "", func(r result) float64 { return r.stack / 1024 })
	row("", "goroutines", "%.1f", func(r result) float64 { return r.goroutines })
	row("whole", "data connections of all nodes, without caches", "", func(r result) float64 { return float64(r.idleConnections) })
	row("whole", "data connections opened, with a cache", "%.1f", func(r result) float64 { return r.connections })
	row("whole", "gossip at rest, UDP bytes/s out", "", func(r result) float64 { return float64(r.rest.udpOut) })
	row("whole", "gossip at rest, TCP bytes/s out", "", func(r result) float64 { return float64(r.rest.tcpOut) })
	row("whole", "CPU at rest, % of a core", "%.2f", func(r result) float64 { return 100 * r.restCPU })
	row("caches", "CPU to start, s", "%.3f", func(r result) float64 { return r.startCPU })
	row("caches", "calls/s of the node that invalidates", "", func(r result) float64 { return float64(r.calls) / r.seconds })
	row("", "invalidations/s confirmed by all", "", func(r result) float64 { return float64(r.invalidations) / r.seconds })
	row("", "out of the node that invalidates, KiB/s", "", func(r result) float64 { return r.kibPerSecond(r.sender) })
	row("", "into the node that invalidates, KiB/s", "", func(r result) float64 { return r.kibPerSecond(r.senderIn) })
	row("", "into another, KiB/s", "%.1f", func(r result) float64 { return r.kibPerSecond(r.receiver) })
	row("", "CPU of all nodes together, cores", "%.2f", func(r result) float64 { return r.loadCPU })
	return bench.Markdown(rows, 1)
}

func (r result) kibPerSecond(bytes int64) float64 { return float64(bytes) / r.seconds / 1024 }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}
