"""Results as standard objects: DICOM SR, SC, SEG and key objects, FHIR, HL7 v2."""
