package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weircache/weir/peer"
	"github.com/weircache/weir/tier"
)

func ringCommand(w *world) *cobra.Command {
	var namespace string
	c := &cobra.Command{
		Use:   "ring KEY --namespace NAME",
		Short: "Show the owner of a key, the next owner, and the copies with their ages",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if namespace == "" {
				return usageError("--namespace is missing: name the cache that the key is of")
			}
			c, err := newClientOf(w)
			if err != nil {
				return err
			}
			status, body, err := c.ask(cmd.Context(), http.MethodGet, "key", url.Values{"namespace": {namespace}, "key": {args[0]}}, nil)
			if err != nil {
				return err
			}
			if status != http.StatusOK {
				return c.failure(status, body)
			}
			var k peer.KeyStats
			if err := json.Unmarshal(body, &k); err != nil || k.Owner == "" {
				return notWeir("what answers at %s is not weir, or of another version", c.base)
			}
			if w.json {
				if err := indented(w.out, body); err != nil {
					return err
				}
				return partial(k.Missing)
			}
			next := strings.Join(k.Successors, ", then ")
			if next == "" {
				next = "none: it is the only member"
			}
			if _, err := fmt.Fprintf(w.out, "partition %d, owned by %s; next is %s\n\n", k.Partition, printable(k.Owner), printable(next)); err != nil {
				return err
			}
			if err := table(w.out, copyRows(k)...); err != nil {
				return err
			}
			return partial(k.Missing)
		},
	}
	c.Flags().StringVarP(&namespace, "namespace", "n", "", "`name` of the cache")
	return c
}

// copyRows lists the copies of a key.
func copyRows(k peer.KeyStats) [][]string {
	rows := [][]string{{"MEMBER", "TIER", "AGE", "FRESH FOR", "SERVED FOR", "BYTES", ""}}
	for _, m := range k.Members {
		var copies []tier.Copy
		if err := json.Unmarshal(m.Copies, &copies); err != nil {
			rows = append(rows, []string{m.Name, "not understood", "", "", "", "", ""})
			continue
		}
		if len(copies) == 0 {
			rows = append(rows, []string{m.Name, "no copy", "", "", "", "", ""})
		}
		for _, c := range copies {
			note := ""
			switch {
			case c.Failed:
				note = "the last load failed"
			case c.NotFound:
				note = "the origin has no such key"
			case c.Fresh < 0:
				note = "stale"
			}
			rows = append(rows, []string{m.Name, c.Tier, seconds(c.Age), seconds(c.Fresh), seconds(c.Left), fmt.Sprint(c.Bytes), note})
		}
	}
	return rows
}

// invalidateBatch is how many keys one request carries.
const invalidateBatch = 1000

func invalidateCommand(w *world) *cobra.Command {
	var namespace, file string
	var tags []string
	var all bool
	c := &cobra.Command{
		Use:   "invalidate --namespace NAME KEY... | --keys FILE | --tag TAG | --all",
		Short: "Invalidate keys, tags or a whole namespace on every member",
		Long: `Invalidate keys, all values that have a tag, or the whole namespace on every member. The command needs the operator's
token. The exit code is 0 only if every member has confirmed. Otherwise the command names the members that have not, and the exit
code is 3.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, keys []string) error {
			if namespace == "" {
				return usageError("--namespace is missing: give the name of the cache that has the keys")
			}
			c, err := newClientOf(w)
			if err != nil {
				return err
			}
			if file != "" {
				more, err := readKeys(file)
				if err != nil {
					return usageError(fmt.Sprintf("--keys: %v", err))
				}
				keys = append(keys, more...)
			}
			switch {
			case all && len(keys)+len(tags) > 0:
				return usageError("--all is everything: name no keys and no tags with it")
			case !all && len(keys)+len(tags) == 0:
				return usageError("no keys and no tags are named; --all is everything")
			}
			what := fmt.Sprintf("%d keys of %s are", len(keys), printable(namespace))
			switch {
			case all:
				what = "everything of " + printable(namespace) + " is"
			case len(tags) > 0:
				what = fmt.Sprintf("%d keys and %d tags of %s are", len(keys), len(tags), printable(namespace))
			}
			done, unconfirmed := 0, []string(nil)
			for len(keys) > 0 || len(tags) > 0 || all {
				n := min(len(keys), invalidateBatch)
				status, body, err := c.ask(cmd.Context(), http.MethodPost, "invalidate", nil, peer.InvalidateRequest{Namespace: namespace, Keys: keys[:n], Tags: tags, All: all})
				if err != nil {
					return err
				}
				var result peer.InvalidateResult
				if json.Unmarshal(body, &result) != nil || status != http.StatusOK && status != http.StatusBadGateway {
					return c.failure(status, body)
				}
				if result.Error != "" {
					unconfirmed = append(unconfirmed, printable(result.Error))
				}
				done, keys, tags, all = done+result.Invalidated, keys[n:], nil, false
			}
			if w.json {
				b, err := json.Marshal(peer.InvalidateResult{Invalidated: done, Error: strings.Join(unconfirmed, "; ")})
				if err == nil {
					err = indented(w.out, b)
				}
				if err != nil {
					return err
				}
			} else if _, err := fmt.Fprintln(w.out, what, "invalidated"); err != nil {
				return err
			}
			if len(unconfirmed) > 0 {
				return &exitError{exitPartial, strings.Join(unconfirmed, "\n")}
			}
			return nil
		},
	}
	c.Flags().StringVarP(&namespace, "namespace", "n", "", "`name` of the cache")
	c.Flags().StringVar(&file, "keys", "", "`file` with one key a line; - reads standard input")
	c.Flags().StringArrayVar(&tags, "tag", nil, "invalidate all values with this `tag`; may be given several times")
	c.Flags().BoolVar(&all, "all", false, "invalidate the whole namespace")
	return c
}

// readKeys reads one key per line.
func readKeys(name string) (keys []string, err error) {
	f := os.Stdin
	if name != "-" {
		if f, err = os.Open(name); err != nil {
			return nil, err
		}
		defer f.Close()
	}
	s := bufio.NewScanner(f)
	for s.Scan() {
		if s.Text() != "" {
			keys = append(keys, s.Text())
		}
	}
	return keys, s.Err()
}
