"""A PACS: images from it (DICOMweb, C-STORE), results for it (SR, SC, SEG, KO, FHIR, HL7 v2)."""
