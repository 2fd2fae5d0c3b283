package freshet

import (
	"encoding/base64"
	"encoding/binary"

	"github.com/google/uuid"
)

// ClusterID identifies a cluster for ever; made at its bootstrap.
type ClusterID = uuid.UUID

// DomainID identifies a UFS domain (a bucket, a name service, a directory tree):
// the first 16 bytes of SHA-256("v1\n" + canonical authority).
type DomainID [16]byte

// Token proves a write: a read that carries it, in any cluster, sees at least
// that write. The zero Token asks for nothing.
type Token struct {
	Cluster ClusterID
	Epoch   uint64
	Domain  DomainID
	Seq     uint64
}

const tokenVersion = 1

// IsZero reports whether t asks for nothing.
func (t Token) IsZero() bool { return t == Token{} }

// String returns the text form, URL-safe base64 of at most 72 characters, and ""
// for the zero Token.
func (t Token) String() string {
	if t.IsZero() {
		return ""
	}
	b := make([]byte, 0, 1+16+16+2*binary.MaxVarintLen64)
	b = append(b, tokenVersion)
	b = append(b, t.Cluster[:]...)
	b = append(b, t.Domain[:]...)
	b = binary.AppendUvarint(b, t.Epoch)
	b = binary.AppendUvarint(b, t.Seq)
	return base64.RawURLEncoding.EncodeToString(b)
}

// ParseToken reads the text form. A malformed token is KindInvalid: it is never
// silently ignored.
func ParseToken(s string) (Token, error) {
	var t Token
	if s == "" {
		return t, nil
	}
	bad := func(why string) (Token, error) {
		return Token{}, Errorf(KindInvalid, "parse token", "", "malformed session token: %s", why)
	}
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return bad("not base64url")
	}
	if len(b) < 1+32+2 || b[0] != tokenVersion {
		return bad("unknown version or too short")
	}
	copy(t.Cluster[:], b[1:17])
	copy(t.Domain[:], b[17:33])
	rest := b[33:]
	var n int
	if t.Epoch, n = binary.Uvarint(rest); n <= 0 {
		return bad("epoch")
	}
	rest = rest[n:]
	if t.Seq, n = binary.Uvarint(rest); n <= 0 || n != len(rest) {
		return bad("sequence number")
	}
	if t.IsZero() || t.String() != s {
		return bad("not in canonical form")
	}
	return t, nil
}
