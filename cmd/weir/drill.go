package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weircache/weir/peer"
	"github.com/weircache/weir/tier"
)

// drillLook is the interval at which weir drill checks the progress.
const drillLook = 500 * time.Millisecond

func drillCommand(w *world) *cobra.Command {
	req := peer.DrillRequest{}
	var length time.Duration
	c := &cobra.Command{
		Use:   "drill --namespace NAME",
		Short: "Rehearse losing the cache: a fraction of the hits behave as misses for a while",
		Long: `Rehearse losing the cache: for a while, a fraction of the reads that find a copy behave as misses. The
loads go through the governor at the lowest class. A caller that would get an error gets the copy instead. The drill ends
when its time is over, and at once when the breaker opens or a tenth of its loads fail.

The command needs the operator's token. It waits until the drill has ended and reports what the origin had to do. Ctrl-C ends
the drill. The exit code is 0 if the drill lasted for its whole time, 1 if it ended early, 3 if some members took no part.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case req.Namespace == "":
				return usageError("--namespace is missing: name the cache to rehearse the loss of")
			case !(req.Fraction > 0 && req.Fraction <= 1):
				return usageError("--fraction must be above 0 and at most 1: 0.05 is one hit of twenty")
			case length <= 0 || length > tier.MaxDrill:
				return usageError(fmt.Sprintf("--for must be above 0 and at most %v", tier.MaxDrill))
			}
			req.Seconds = length.Seconds()
			c, err := newClientOf(w)
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			if req.Stop {
				begun, err := c.drill(ctx, req)
				if err != nil {
					return err
				}
				if !w.json {
					if _, err := fmt.Fprintf(w.out, "stopped on %s\n", printable(strings.Join(begun.Members, ", "))); err != nil {
						return err
					}
				}
				return partial(begun.Missing)
			}
			// An interrupt does not end this request, because the drill could have begun: awaitDrill then stops it.
			begun, err := c.drill(context.WithoutCancel(ctx), req)
			if err != nil {
				return err
			}
			drills, err := c.awaitDrill(ctx, req, begun.Members)
			if err != nil {
				return err
			}
			if err := showDrills(w, drills); err != nil {
				return err
			}
			return verdictOf(drills, begun.Missing)
		},
	}
	c.Flags().StringVarP(&req.Namespace, "namespace", "n", "", "`name` of the cache")
	c.Flags().Float64Var(&req.Fraction, "fraction", 0.05, "`fraction` of the hits that behave as misses, above 0 and at most 1")
	c.Flags().DurationVar(&length, "for", 30*time.Second, "`duration` of the drill")
	c.Flags().BoolVar(&req.Cluster, "cluster", false, "drill the hits on all members instead of those on one member")
	c.Flags().BoolVar(&req.Stop, "stop", false, "end the drill that is running")
	return c
}

// drill starts or stops a drill.
func (c *client) drill(ctx context.Context, req peer.DrillRequest) (out peer.DrillResult, err error) {
	status, body, err := c.ask(ctx, http.MethodPost, "drill", nil, req)
	if err != nil {
		if !req.Stop {
			everywhere := ""
			if req.Cluster {
				everywhere = " --cluster"
			}
			err = notWeir("%v; if the request reached it, the drill runs, and weir drill --namespace %s%s --stop ends it", err, req.Namespace, everywhere)
		}
		return out, err
	}
	if status != http.StatusAccepted {
		return out, c.failure(status, body)
	}
	if err := json.Unmarshal(body, &out); err != nil || len(out.Members) == 0 {
		return out, notWeir("what answers at %s is not weir, or of another version", c.base)
	}
	return out, nil
}

// A memberDrill is a member's part in a drill as weir drill prints it.
type memberDrill struct {
	Name  string          `json:"name"`
	Drill tier.DrillStats `json:"drill"`
}

// awaitDrill waits until the drill has ended on all members. If ctx ends first, it stops the drill.
func (c *client) awaitDrill(ctx context.Context, req peer.DrillRequest, members []string) ([]memberDrill, error) {
	tick := time.NewTicker(drillLook)
	defer tick.Stop()
	stopped := false
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			if stopped {
				return nil, ctx.Err()
			}
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), askTime)
			defer cancel()
			req.Stop, stopped = true, true
			if _, err := c.drill(ctx, req); err != nil {
				return nil, err
			}
		}
		doc, _, err := c.cluster(ctx)
		if err != nil {
			if ctx.Err() != nil && !stopped {
				continue
			}
			return nil, err
		}
		drills, running := drillsOf(doc, req.Namespace, members)
		if !running {
			return drills, nil
		}
	}
}

// drillsOf returns what the members report about a namespace's drill.
func drillsOf(doc peer.ClusterStats, namespace string, members []string) (out []memberDrill, running bool) {
	for _, m := range doc.Members {
		if !slices.Contains(members, m.Name) {
			continue
		}
		var s struct {
			Namespaces map[string]struct {
				Drill tier.DrillStats `json:"drill"`
			} `json:"namespaces"`
		}
		if json.Unmarshal(m.Stats, &s) != nil {
			continue
		}
		d := s.Namespaces[namespace].Drill
		running = running || d.Running
		out = append(out, memberDrill{m.Name, d})
	}
	return out, running
}

func showDrills(w *world, drills []memberDrill) error {
	if w.json {
		b, err := json.Marshal(drills)
		if err != nil {
			return err
		}
		return indented(w.out, b)
	}
	rows := [][]string{{"MEMBER", "ENDED", "AFTER", "DRILLED", "LOADED", "SPARED", "FAILED", "LOADS", "LOADS FAILED", "MOST AT ONCE", "WAIT P50", "P99"}}
	var margin, cold float64
	for _, m := range drills {
		d := m.Drill
		rows = append(rows, []string{
			m.Name, d.Ended, seconds(d.Seconds), fmt.Sprint(d.Drilled), fmt.Sprint(d.Filled), fmt.Sprint(d.Spared), fmt.Sprint(d.Failed),
			fmt.Sprint(d.Loads), fmt.Sprint(d.Errors), fmt.Sprint(d.Peak), seconds(d.P50), seconds(d.P99),
		})
		if d.Whole.ColdLoad > cold {
			cold, margin = d.Whole.ColdLoad, d.Whole.Margin
		}
	}
	if err := table(w.out, rows...); err != nil {
		return err
	}
	if cold == 0 {
		return nil
	}
	_, err := fmt.Fprintf(w.out, "\nIf all were lost, the origin would be asked %.0f times a second; it bears %.2g times that.\n", cold, margin)
	return err
}

// verdictOf returns an error if the drill had to end early or members are missing.
func verdictOf(drills []memberDrill, missing []peer.MissingMember) error {
	var early []string
	for _, m := range drills {
		if m.Drill.Ended == "breaker" || m.Drill.Ended == "errors" {
			early = append(early, fmt.Sprintf("on %s it ended after %s: %s", printable(m.Name), seconds(m.Drill.Seconds),
				map[string]string{"breaker": "the breaker opened", "errors": "loads failed"}[m.Drill.Ended]))
		}
	}
	err := partial(missing)
	if len(early) == 0 {
		return err
	}
	text := "the origin did not hold: " + strings.Join(early, "; ")
	if err != nil {
		text += "\n" + err.Error()
	}
	return &exitError{exitFailed, text}
}
