//go:build linux

package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/weircache/weir/tier"
)

func main() {
	if os.Getenv(nodeName) != "" {
		os.Exit(nodeMain())
	}
	s, err := parse(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := chaos(ctx, s, func(format string, args ...any) { fmt.Printf(format+"\n", args...) }); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

// contracts are used in turn by the seeds: short-lived copies that may be served stale, long-lived ones, and no staleness
// at all.
var contracts = []tier.Freshness{
	{TTL: 2 * time.Second, StaleWhileRevalidate: 3 * time.Second, StaleIfError: 6 * time.Second, NearTTL: 500 * time.Millisecond},
	{TTL: time.Hour, NearTTL: time.Minute},
	{TTL: 4 * time.Second, NearTTL: 4 * time.Second, RefreshAhead: -1, Jitter: -1},
}

// parse reads the flags.
func parse(args []string) (settings, error) {
	var s settings
	var list, freshness string
	flags := flag.NewFlagSet("chaos", flag.ExitOnError)
	seed := flags.Uint64("seed", 0, "decides the faults and what clients want; 0: the clock gives one")
	flags.DurationVar(&s.length, "for", 2*time.Minute, "how long there are faults, in all rounds together")
	flags.DurationVar(&s.round, "round", 40*time.Second, "how long there are faults until all of them end and everything has to hold")
	flags.StringVar(&list, "faults", "all", fmt.Sprintf("kinds of faults, with commas: of %v; with a minus before each: all but these", kinds))
	flags.DurationVar(&s.hold, "hold", 15*time.Second, "how long a fault may last")
	flags.IntVar(&s.Nodes, "nodes", 5, "nodes, 2 to 200")
	flags.IntVar(&s.MinMembers, "min-members", 0, "peer.Config.MinMembers; 0: as many as there are nodes. A node that starts behind a partition knows of no other members, so fewer let it exceed its part of the cap")
	flags.IntVar(&s.Cap, "cap", 0, "loads at once, the whole cluster's; 0: two for each node")
	flags.DurationVar(&s.Timeout, "timeout", time.Second, "how long a load may take")
	flags.StringVar(&freshness, "ttl", "", "the copies' TTL; they are served stale for as long again, and after errors for thrice as long. Empty: the seed chooses among contracts")
	flags.IntVar(&s.keys, "keys", 40, "keys")
	flags.IntVar(&s.clients, "clients", 3, "clients of each node")
	flags.DurationVar(&s.pace, "pace", 60*time.Millisecond, "between two calls of a client, on the average")
	flags.StringVar(&s.Sabotage, "sabotage", "", "what the nodes do wrong on purpose: deaf (they confirm invalidations and drop them), greedy (each takes the whole cap) or young (answers say that they are new)")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano()) % 1e9
	}
	s.seed = *seed
	if s.Cap == 0 {
		s.Cap = 2 * s.Nodes
	}
	if s.MinMembers == 0 {
		s.MinMembers = s.Nodes
	}
	s.Freshness = contracts[s.seed%uint64(len(contracts))]
	if freshness != "" {
		ttl, err := time.ParseDuration(freshness)
		if err != nil {
			return s, fmt.Errorf("-ttl: %w", err)
		}
		s.Freshness = tier.Freshness{TTL: ttl, StaleWhileRevalidate: ttl, StaleIfError: 3 * ttl, NearTTL: ttl / 4}
	}
	// The effective contract has NearTTL and NegativeTTL filled in.
	if s.Freshness.NegativeTTL == 0 {
		s.Freshness.NegativeTTL = min(s.Freshness.TTL, 5*time.Second)
	}
	var err error
	if s.kinds, err = parseKinds(list); err != nil {
		return s, err
	}
	_, known := sabotages[s.Sabotage]
	switch {
	case flags.NArg() > 0:
		return s, fmt.Errorf("chaos takes flags alone, not %q", flags.Args())
	case s.Nodes < 2 || s.Nodes > 200:
		return s, fmt.Errorf("-nodes %d: 2 to 200", s.Nodes)
	case s.length <= 0 || s.round <= 0 || s.hold <= 0 || s.Timeout <= 0 || s.pace <= 0:
		return s, fmt.Errorf("-for, -round, -hold, -timeout and -pace must be above 0")
	case s.keys < 1 || s.clients < 1 || s.Cap < 1:
		return s, fmt.Errorf("-keys, -clients and -cap must be above 0")
	case !known:
		return s, fmt.Errorf("-sabotage: there is no %q", s.Sabotage)
	}
	return s, nil
}
