// Catalogue is weir's demonstration: three processes of a product service, each an HTTP server that embeds weir, over
// one SQLite database. The driver process takes them through six scenes and verifies its claims.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
)

// nodes is how many processes the service has.
const nodes = 3

// options are the demonstration's flags.
type options struct {
	products int
	rate     int
	hold     bool
	quick    bool
	ports    string
	seed     uint64
}

func main() {
	err := run(os.Args[1:])
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return
	}
	fmt.Fprintln(os.Stderr, "catalogue:", err)
	os.Exit(1)
}

func run(args []string) error {
	if len(args) > 0 && args[0] == "node" {
		return runNode(args[1:])
	}
	var o options
	flags := flag.NewFlagSet("catalogue", flag.ContinueOnError)
	flags.IntVar(&o.products, "products", 100_000, "how many products to generate")
	flags.IntVar(&o.rate, "rate", 1500, "requests a second, to weir and to the yardstick each")
	flags.BoolVar(&o.hold, "hold", false, "after the scenes keep the nodes up until Ctrl-C")
	flags.BoolVar(&o.quick, "quick", false, "shorter scenes")
	flags.StringVar(&o.ports, "ports", "", "three HTTP ports and three peer ports, by commas (default: free ones)")
	flags.Uint64Var(&o.seed, "seed", 1, "seed of the traffic")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%q is no flag; -h lists them", flags.Arg(0))
	}
	if o.products < 1000 || o.products > 999_999 || o.rate < 1 {
		return errors.New("-products must be from 1000 to 999999 and -rate above 0")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := demonstrate(ctx, o)
	if ctx.Err() != nil {
		return errors.New("interrupted; the nodes are stopped")
	}
	return err
}

// addresses gives each node an HTTP and a peer address on the loopback interface.
func addresses(ports string) (http, peers []string, err error) {
	want := make([]string, 2*nodes)
	if ports != "" {
		want = strings.Split(ports, ",")
		if len(want) != 2*nodes {
			return nil, nil, fmt.Errorf("-ports names %d ports; give %d: three for HTTP, three for peers", len(want), 2*nodes)
		}
	}
	var open []net.Listener
	defer func() {
		for _, l := range open {
			_ = l.Close()
		}
	}()
	for i, p := range want {
		if p != "" {
			if n, err := strconv.Atoi(p); err != nil || n < 1 || n > 65535 {
				return nil, nil, fmt.Errorf("-ports: %q is no port", p)
			}
		} else {
			p = "0"
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", p))
		if err != nil {
			return nil, nil, fmt.Errorf("port %s cannot be used: %w; choose others with -ports", p, err)
		}
		open = append(open, l)
		if i < nodes {
			http = append(http, l.Addr().String())
		} else {
			peers = append(peers, l.Addr().String())
		}
	}
	return http, peers, nil
}
