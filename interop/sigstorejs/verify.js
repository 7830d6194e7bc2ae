// Verifies a sigstore bundle by a plain key: node verify.js BUNDLE PUBLIC_KEY ARTIFACT. Exit status 0 when
// the library of the npm client says that it holds. The modules are found through NODE_PATH.
const crypto = require('crypto');
const fs = require('fs');
const { bundleFromJSON } = require('@sigstore/bundle');
const { Verifier, toSignedEntity, toTrustMaterial } = require('@sigstore/verify');

const [bundleFile, keyFile, artifactFile] = process.argv.slice(2);
const publicKey = crypto.createPublicKey(fs.readFileSync(keyFile));
const id = crypto.createHash('sha256').update(publicKey.export({ type: 'spki', format: 'der' })).digest('base64');

const roots = { certificateAuthorities: [], timestampAuthorities: [], tlogs: [], ctlogs: [] };
const trust = toTrustMaterial(roots, (hint) => {
  if (hint !== id) {
    throw new Error(`the bundle names the key ${hint} and not ${id}`);
  }
  return { publicKey, validFor: () => true };
});
const verifier = new Verifier(trust, { ctlogThreshold: 0, tlogThreshold: 0, timestampThreshold: 0 });
const bundle = bundleFromJSON(JSON.parse(fs.readFileSync(bundleFile, 'utf8')));
verifier.verify(toSignedEntity(bundle, fs.readFileSync(artifactFile)));
console.log('verified');
