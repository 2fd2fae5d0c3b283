package azblob

import (
	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"github.com/freshet-io/freshet/ufs"
)

// OpenWithToken is Open with another source of tokens.
func (o *Opener) OpenWithToken(spec ufs.Spec, env ufs.Environment, token azcore.TokenCredential) (ufs.FS, error) {
	return o.open(spec, env, token)
}
