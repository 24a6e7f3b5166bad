package roster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"
)

// An Identity is what a node says about itself in its gossip meta. It does not contain the address, because a member's data
// and gossip share one, which gossip already carries.
type Identity struct {
	Name        string
	Cluster     string
	Incarnation uint64 // which start of the node this is; a later start has a higher value
	Protocol    uint16 // of the data connections
	RingVersion uint16
	Placement   uint64 // fingerprint of ring version and configuration
	leaving     bool
	Zone        string // "": not stated
}

const (
	metaFormat  = 1
	metaLeaving = 1 << 0 // flag

	// format, flags, protocol, ring version, placement, incarnation
	metaFixed = 1 + 1 + 2 + 2 + 8 + 8
)

var errMeta = errors.New("malformed meta")

// Append appends the identity's encoding to dst. All integers are big endian. A text is its length in one byte, followed by
// its bytes:
//
//	format uint8, flags uint8, protocol uint16, ring version uint16,
//	placement uint64, incarnation uint64, name text, cluster text, zone text
//
// A zone that is not stated is left out.
func (id *Identity) Append(dst []byte) []byte {
	var flags byte
	if id.leaving {
		flags |= metaLeaving
	}
	dst = append(dst, metaFormat, flags)
	dst = binary.BigEndian.AppendUint16(dst, id.Protocol)
	dst = binary.BigEndian.AppendUint16(dst, id.RingVersion)
	dst = binary.BigEndian.AppendUint64(dst, id.Placement)
	dst = binary.BigEndian.AppendUint64(dst, id.Incarnation)
	dst = append(append(dst, byte(len(id.Name))), id.Name...)
	dst = append(append(dst, byte(len(id.Cluster))), id.Cluster...)
	if id.Zone != "" {
		dst = append(append(dst, byte(len(id.Zone))), id.Zone...)
	}
	return dst
}

// DecodeIdentity reads what append wrote. It keeps no reference to b. Unknown flags and bytes after the zone are ignored,
// so that a later version may add some.
func DecodeIdentity(b []byte) (Identity, error) {
	var id Identity
	if len(b) < 1 || b[0] != metaFormat {
		return id, fmt.Errorf("%w: not of format %d", errMeta, metaFormat)
	}
	if len(b) < metaFixed {
		return id, fmt.Errorf("%w: %d bytes", errMeta, len(b))
	}
	id.leaving = b[1]&metaLeaving != 0
	id.Protocol = binary.BigEndian.Uint16(b[2:])
	id.RingVersion = binary.BigEndian.Uint16(b[4:])
	id.Placement = binary.BigEndian.Uint64(b[6:])
	id.Incarnation = binary.BigEndian.Uint64(b[14:])
	b = b[metaFixed:]
	var err error
	if id.Name, b, err = cutText(b, MaxName); err != nil {
		return Identity{}, fmt.Errorf("%w: name: %w", errMeta, err)
	}
	if id.Cluster, b, err = cutText(b, MaxClusterName); err != nil {
		return Identity{}, fmt.Errorf("%w: cluster name: %w", errMeta, err)
	}
	if len(b) > 0 && b[0] > 0 {
		if id.Zone, _, err = cutText(b, MaxZone); err != nil {
			return Identity{}, fmt.Errorf("%w: zone: %w", errMeta, err)
		}
	}
	return id, nil
}

// cutText reads a text from the front of b and checks that it is a valid name.
func cutText(b []byte, limit int) (string, []byte, error) {
	if len(b) == 0 {
		return "", nil, errors.New("cut short")
	}
	n := int(b[0])
	if n > len(b)-1 {
		return "", nil, fmt.Errorf("%d bytes where %d are left", n, len(b)-1)
	}
	text := string(b[1 : 1+n])
	if err := CheckName(text, limit); err != nil {
		return "", nil, err
	}
	return text, b[1+n:], nil
}

// GossipName returns the node's name in memberlist. It includes the incarnation, because memberlist ignores a known name at
// a new address for as long as it remembers the old one, which would lock out a restarted node.
func (id *Identity) GossipName() string {
	return id.Name + "/" + strconv.FormatUint(id.Incarnation, 16)
}

// NewIncarnation returns the time in nanoseconds with its lowest byte replaced by a random one. A later start has a higher
// number, and two starts never have the same.
func NewIncarnation(now time.Time, rnd *rand.Rand) uint64 {
	return uint64(now.UnixNano())&^0xff | rnd.Uint64()&0xff
}
