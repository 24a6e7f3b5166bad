package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/weircache/weir/peer"
)

// printable prevents text from others from manipulating the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

// table prints rows. The first row is the heading.
func table(out io.Writer, rows ...[]string) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i := range row {
			row[i] = printable(row[i])
		}
		_, _ = fmt.Fprintln(w, strings.Join(row, "\t")) // Flush returns the error
	}
	return w.Flush()
}

// number follows a path of names into a document. It returns 0 if a name is missing.
func number(doc any, path string) float64 {
	for name := range strings.SplitSeq(path, ".") {
		m, _ := doc.(map[string]any)
		doc = m[name]
	}
	f, _ := doc.(float64)
	return f
}

func count(v float64) string { return fmt.Sprintf("%.0f", v) }

func ratio(part, whole float64) string {
	if whole == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f %%", 100*part/whole)
}

func size(v float64) string {
	for _, unit := range []string{"B", "KiB", "MiB", "GiB"} {
		if v < 1024 {
			return fmt.Sprintf("%.4g %s", v, unit)
		}
		v /= 1024
	}
	return fmt.Sprintf("%.4g TiB", v)
}

func seconds(v float64) string {
	return time.Duration(v * float64(time.Second)).Round(10 * time.Microsecond).String()
}

// indented prints a JSON document with indentation.
func indented(out io.Writer, raw []byte) error {
	var b bytes.Buffer
	if err := json.Indent(&b, bytes.TrimSpace(raw), "", "  "); err != nil {
		return err
	}
	b.WriteByte('\n')
	_, err := out.Write(b.Bytes())
	return err
}

func statsCommand(w *world) *cobra.Command {
	var ages bool
	c := &cobra.Command{
		Use:   "stats",
		Short: "Show the counters of the namespaces, summed over the members",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := newClientOf(w)
			if err != nil {
				return err
			}
			doc, raw, err := c.cluster(cmd.Context())
			if err != nil {
				return err
			}
			if w.json {
				if err := indented(w.out, raw); err != nil {
					return err
				}
				return partial(doc.Missing)
			}
			rows := [][]string{{"NAMESPACE", "READS", "NEAR", "OWNED", "WAITED", "ERRORS", "LOADS", "MEAN LOAD", "RUNNING", "WAITING", "REFUSED", "RESCUED", "STALE", "OLDEST SERVED", "OWNED BYTES"}}
			for _, name := range slices.Sorted(maps.Keys(doc.Total)) {
				rows = append(rows, append([]string{name}, spaceRow(doc.Total[name])...))
			}
			if err := table(w.out, rows...); err != nil {
				return err
			}
			if ages {
				if _, err := fmt.Fprintln(w.out); err != nil {
					return err
				}
				if err := table(w.out, ageRows(doc.Total)...); err != nil {
					return err
				}
			}
			return partial(doc.Missing)
		},
	}
	c.Flags().BoolVar(&ages, "ages", false, "print the ages of the answers and the reasons for stale ones")
	return c
}

// spaceRow returns the row of a namespace.
func spaceRow(d any) []string {
	near, owned, fill, failed := number(d, "near"), number(d, "owned"), number(d, "fill"), number(d, "errors")
	reads, cost := near+owned+fill+failed, "-"
	if n := number(d, "loads") - number(d, "running"); n > 0 {
		cost = seconds(number(d, "load_seconds") / n)
	}
	return []string{
		count(reads), ratio(near, reads), ratio(owned, reads), ratio(fill, reads), ratio(failed, reads), count(number(d, "loads")), cost,
		count(number(d, "governor.in_use")) + "/" + count(number(d, "governor.share")), count(number(d, "governor.waiting")),
		count(number(d, "shed")), count(number(d, "rescued")),
		count(number(d, "stale") + number(d, "stale_near")), oldest(d), size(number(d, "owned_bytes")),
	}
}

// oldest returns the greatest age served, and the greatest that the contract allows.
func oldest(d any) string {
	age := 0.0
	for _, source := range []string{"near", "owned", "fill"} {
		age = max(age, number(d, "ages."+source+".max_seconds"))
	}
	if bound := number(d, "max_age_seconds"); bound > 0 {
		return rough(age) + " of " + rough(bound)
	}
	return "-"
}

// rough formats a duration to about three digits.
func rough(v float64) string {
	d := time.Duration(v * float64(time.Second))
	for _, unit := range []time.Duration{time.Second, time.Millisecond} {
		if d >= 10*unit {
			return d.Round(unit).String()
		}
	}
	return d.Round(10 * time.Microsecond).String()
}

// ageRows shows the ages of served values, by namespace and source, against the contract.
func ageRows(total map[string]any) [][]string {
	rows := [][]string{{"NAMESPACE", "SERVED FROM", "ANSWERS", "AGE P50", "AGE P99", "OLDEST", "STALE, AND WHY"}}
	for _, name := range slices.Sorted(maps.Keys(total)) {
		d, why := total[name], ""
		m, _ := d.(map[string]any)
		reasons, _ := m["stale_by_reason"].(map[string]any)
		for _, reason := range slices.Sorted(maps.Keys(reasons)) {
			if n := number(reasons, reason); n > 0 {
				why = strings.TrimPrefix(why+", "+count(n)+" "+strings.ReplaceAll(reason, "_", " "), ", ")
			}
		}
		for _, source := range []string{"near", "owned", "fill"} {
			at := "ages." + source
			rows = append(rows, []string{
				name, source, count(number(d, at+".answers")), rough(number(d, at+".p50_seconds")), rough(number(d, at+".p99_seconds")), rough(number(d, at+".max_seconds")), why,
			})
			name, why = "", ""
		}
	}
	return rows
}

// A memberLine is a line of weir members.
type memberLine struct {
	Name    string     `json:"name"`
	Addr    string     `json:"addr"`
	Zone    string     `json:"zone,omitempty"`
	State   peer.State `json:"state"`
	Ready   bool       `json:"ready"`
	Reason  string     `json:"reason,omitempty"` // why it is not ready or does not answer
	Share   float64    `json:"share"`
	RTT     float64    `json:"rtt_seconds"`
	Version string     `json:"version"`
	Uptime  int64      `json:"uptime_seconds"`
	View    string     `json:"view"` // fingerprint of its view
}

// memberLines combines what the members report about themselves with what the asked member reports about them.
func memberLines(doc peer.ClusterStats) []memberLine {
	known := make(map[string]peer.MemberInfo)
	all := make(map[string]peer.Stats)
	for _, m := range doc.Members {
		var s peer.Stats
		if json.Unmarshal(m.Stats, &s) == nil {
			all[m.Name] = s
		}
	}
	for _, m := range all[doc.By].View.Members {
		known[m.Name] = m
	}
	var out []memberLine
	for _, m := range doc.Members {
		s, k := all[m.Name], known[m.Name]
		if k.State == "" {
			k.State = peer.StateAlive
		}
		out = append(out, memberLine{m.Name, s.Node.Addr, k.Zone, k.State, s.Node.Ready, s.Node.Reason, k.Share, m.RTT, s.Node.Version, s.Node.Uptime, s.View.Fingerprint})
	}
	for _, m := range doc.Missing {
		out = append(out, memberLine{Name: m.Name, Addr: m.Addr, State: m.State, Reason: m.Reason, Share: known[m.Name].Share})
	}
	slices.SortFunc(out, func(a, b memberLine) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func membersCommand(w *world) *cobra.Command {
	return &cobra.Command{
		Use:   "members",
		Short: "Show the members of the cluster, and why others are not in it",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := newClientOf(w)
			if err != nil {
				return err
			}
			doc, _, err := c.cluster(cmd.Context())
			if err != nil {
				return err
			}
			lines := memberLines(doc)
			if w.json {
				b, err := json.Marshal(lines)
				if err == nil {
					err = indented(w.out, b)
				}
				if err != nil {
					return err
				}
				return partial(doc.Missing)
			}
			if err := table(w.out, memberRows(lines)...); err != nil {
				return err
			}
			return partial(doc.Missing)
		},
	}
}

func memberRows(lines []memberLine) [][]string {
	rows := [][]string{{"MEMBER", "ADDRESS", "STATE", "READY", "SHARE", "ROUND TRIP", "UP FOR", "VERSION", "VIEW"}}
	zones := slices.ContainsFunc(lines, func(m memberLine) bool { return m.Zone != "" })
	if zones {
		rows[0] = append(rows[0], "ZONE")
	}
	for _, m := range lines {
		ready, uptime := "no", "-"
		if m.Ready {
			ready = "yes"
		}
		if m.View != "" {
			uptime = (time.Duration(m.Uptime) * time.Second).String()
		}
		rows = append(rows, []string{
			m.Name, m.Addr, string(m.State), ready, fmt.Sprintf("%.1f %%", 100*m.Share), seconds(m.RTT), uptime, m.Version, m.View[:min(8, len(m.View))],
		})
		if zones {
			rows[len(rows)-1] = append(rows[len(rows)-1], m.Zone)
		}
	}
	return rows
}
