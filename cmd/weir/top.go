package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/weircache/weir/peer"
)

func topCommand(w *world) *cobra.Command {
	var every time.Duration
	var times int
	c := &cobra.Command{
		Use:   "top",
		Short: "Show the cluster live until Ctrl-C",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if every < 200*time.Millisecond || times < 0 {
				return usageError("--every must be at least 200ms, and --times not below 0")
			}
			c, err := newClientOf(w)
			if err != nil {
				return err
			}
			return top(cmd.Context(), w, c, every, times)
		},
	}
	c.Flags().DurationVar(&every, "every", time.Second, "`interval` between two updates")
	c.Flags().IntVar(&times, "times", 0, "`number` of updates before the command ends; 0: no limit")
	return c
}

// top refreshes its screen repeatedly. A member that does not answer ends it only on the first screen; later the member
// may come back.
func top(ctx context.Context, w *world, c *client, every time.Duration, times int) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var last peer.ClusterStats
	for n := 1; ; n++ {
		doc, raw, err := c.cluster(ctx)
		var screen bytes.Buffer
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && n == 1:
			return err
		case err != nil:
			fmt.Fprintln(&screen, time.Now().Format(time.TimeOnly), err)
		case w.json: // one document per line
			if err := json.Compact(&screen, raw); err != nil {
				return err
			}
			screen.WriteByte('\n')
		default:
			draw(&screen, doc, last)
			last = doc
		}
		if w.connected && !w.json {
			_, _ = fmt.Fprint(w.out, "\x1b[H\x1b[2J")
		}
		if _, err := w.out.Write(screen.Bytes()); err != nil {
			return err
		}
		if n == times {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// draw writes one screen.
func draw(screen *bytes.Buffer, doc, last peer.ClusterStats) {
	fmt.Fprintf(screen, "%s  %d of %d members answer, asked %s\n\n", doc.At.Local().Format(time.TimeOnly), len(doc.Members), len(doc.Members)+len(doc.Missing), printable(doc.By))
	_ = table(screen, memberRows(memberLines(doc))...) // writing to a buffer never fails
	screen.WriteByte('\n')

	rows := [][]string{{"NAMESPACE", "READS/S", "LOADS/S", "REFUSED/S", "RESCUED/S", "RUNNING", "WAITING", "WITHOUT WAITING"}}
	span := doc.At.Sub(last.At).Seconds()
	for _, name := range slices.Sorted(maps.Keys(doc.Total)) {
		rise := func(paths ...string) (sum float64) {
			for _, p := range paths {
				sum += number(doc.Total[name], p) - number(last.Total[name], p)
			}
			return max(sum, 0) // members that leave take their counters with them
		}
		rate := func(paths ...string) string {
			if last.At.IsZero() || span <= 0 {
				return "-"
			}
			return fmt.Sprintf("%.1f", rise(paths...)/span)
		}
		reads := []string{"near", "owned", "fill", "errors"}
		d := doc.Total[name]
		rows = append(rows, []string{
			name, rate(reads...), rate("loads"), rate("shed"), rate("rescued"),
			count(number(d, "governor.in_use")) + "/" + count(number(d, "governor.share")), count(number(d, "governor.waiting")), ratio(rise("near", "owned"), rise(reads...)),
		})
	}
	_ = table(screen, rows...)
	drawDrills(screen, doc)
	for _, m := range doc.Missing {
		fmt.Fprintf(screen, "\nno answer from %s (%s): %s\n", printable(m.Name), m.Addr, printable(m.Reason))
	}
}

// drawDrills shows the running drills.
func drawDrills(screen *bytes.Buffer, doc peer.ClusterStats) {
	var names []string
	for _, m := range doc.Members {
		names = append(names, m.Name)
	}
	for _, space := range slices.Sorted(maps.Keys(doc.Total)) {
		drills, _ := drillsOf(doc, space, names)
		for _, d := range drills {
			if d.Drill.Running {
				fmt.Fprintf(screen, "\na drill of %s on %s: %.3g %% of the hits, %s of %s, %d loads, %d spared\n", printable(space), printable(d.Name),
					100*d.Drill.Fraction, rough(d.Drill.Seconds), rough(d.Drill.Duration), d.Drill.Loads, d.Drill.Spared)
			}
		}
	}
}
