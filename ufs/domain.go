package ufs

import (
	"crypto/sha256"

	"github.com/freshet-io/freshet"
)

func domainID(authority string) freshet.DomainID {
	sum := sha256.Sum256([]byte("v1\n" + authority))
	return freshet.DomainID(sum[:16])
}
