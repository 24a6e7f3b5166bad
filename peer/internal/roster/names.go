package roster

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"unicode"
	"unicode/utf8"
)

const (
	// MaxName is the longest name of a member, in bytes. The name travels in every gossip message about the member, and
	// those messages must fit into a packet.
	MaxName = 128
	// MaxClusterName is the longest name of a cluster, in bytes, for the same reason.
	MaxClusterName = 64
	// MaxZone is the longest name of a zone, in bytes, for the same reason.
	MaxZone = 64
)

// CheckName returns an error if a name is not valid.
func CheckName(name string, limit int) error {
	switch {
	case name == "":
		return errors.New("is empty")
	case len(name) > limit:
		return fmt.Errorf("%d bytes, the limit is %d", len(name), limit)
	case !utf8.ValidString(name):
		return fmt.Errorf("%q is not valid UTF-8", name)
	}
	for _, r := range name {
		if !unicode.IsGraphic(r) || unicode.IsSpace(r) {
			return fmt.Errorf("%q has the character %q; only printable ones other than spaces are allowed", name, r)
		}
	}
	return nil
}

// SplitAddress splits a "host:port".
func SplitAddress(addr string) (host string, port uint16, err error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, fmt.Errorf("%q is not a \"host:port\": %w", addr, err)
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("%q: the port must be a number from 0 to 65535", addr)
	}
	if host == "" {
		return "", 0, fmt.Errorf("%q has no host", addr)
	}
	return host, uint16(n), nil
}
